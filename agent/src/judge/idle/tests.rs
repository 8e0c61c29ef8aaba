//! The index beside a plain list of what it should hold.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn it_holds_what_gave_way_last_and_a_copy_of_it_is_the_same(
        steps in proptest::collection::vec((0u8..30, 0u8..3), 0..200),
        most in 1usize..12,
    ) {
        let mut idle = Idle::new(most);
        let mut plain: Vec<(u64, String, bool)> = Vec::new();
        let mut next = 0;
        for (name, what) in steps {
            let name = name.to_string();
            let known = plain.iter().position(|(_, known, _)| *known == name);
            if what == 0 {
                let taken = known.map(|at| plain.remove(at));
                let taken = taken.map(|(number, _, alerted)| (number, alerted));
                let given = idle.take("d", &name);
                let given = given.map(|(number, names)| (number, names.is_some()));
                prop_assert_eq!(given, taken);
            } else if known.is_none() {
                while let Some((number, names)) = idle.forget(1) {
                    let (oldest, name, alerted) = plain.remove(0);
                    prop_assert_eq!(number, oldest);
                    let names = names.map(|(_, metric)| String::from(metric));
                    prop_assert_eq!(names, alerted.then_some(name));
                }
                let alerted = what == 1;
                prop_assert_eq!(idle.put("d", &name, alerted), (next, None));
                plain.push((next, name, alerted));
                next += 1;
            }
            prop_assert_eq!((idle.len(), idle.next()), (plain.len(), next));
            let numbers: Vec<u64> = idle.numbers().collect();
            let expected: Vec<u64> = plain.iter().map(|(number, ..)| *number).collect();
            prop_assert_eq!(numbers, expected);
            let mut bytes = Vec::new();
            idle.write(&mut bytes);
            for length in 0..bytes.len() {
                let is_none = Idle::read(most, &mut bytes.get(..length).unwrap()).is_none();
                prop_assert!(is_none);
            }
            idle = Idle::read(most, &mut bytes.as_slice()).unwrap();
            let mut again = Vec::new();
            idle.write(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn places_of_those_that_came_back_are_given_up() {
    let mut idle = Idle::new(100);
    idle.put("d", "silent", false);
    for _ in 0..10 * SLACK {
        idle.put("d", "talks", false);
        idle.take("d", "talks").unwrap();
    }
    assert!(idle.ring.len() < 2 * SLACK, "{}", idle.ring.len());
    assert_eq!(idle.take("d", "silent"), Some((0, None)));
}
