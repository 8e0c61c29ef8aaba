//! What is watched, looked at piece by piece.

use super::*;
use crate::limits::WATCHING_STEP;

#[test]
fn a_survey_goes_through_all_of_them_in_bounded_pieces() {
    let mut told = Told::new(&sensitive());
    let many = WATCHING_STEP as i64 + 10;
    for series in (0..many).rev() {
        told.message(0, &format!("d{series:05}/t"), "1");
    }
    for second in 1..150 {
        told.message(second, "d00000/t", &value(second, usual(second)));
    }
    let mut survey = Survey::new(3);
    assert_eq!(told.judge.survey(&mut survey), None, "one piece is not all");
    let watching = loop {
        if let Some(watching) = told.judge.survey(&mut survey) {
            break watching;
        }
    };
    let many = many as usize;
    assert_eq!((watching.series, watching.learning), (many, many - 1));
    let listed = watching.listed.iter().map(|series| &*series.device);
    let listed: Vec<_> = listed.collect();
    assert_eq!(listed, ["d00001", "d00002", "d00003"], "one is not learned");
}
