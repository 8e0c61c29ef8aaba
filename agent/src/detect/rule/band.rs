//! Where a value may be: below an upper limit, above a lower one, with a margin by which it must
//! come back.

/// Limits of a value. One of them is there, and within the margins there is room.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Band {
    /// Greater values are outside.
    pub above: Option<f64>,
    /// Lesser values are outside.
    pub below: Option<f64>,
    /// How far from the limit a value must be to count as back.
    pub hysteresis: f64,
    /// Whether the limits themselves are outside.
    pub closed: bool,
}

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Side {
    /// Beyond this limit.
    Outside(f64),
    /// Not beyond it, and not back.
    Margin,
    /// Back from every limit.
    Inside,
}

impl Band {
    /// Where `value` is, which is a number.
    pub fn side(&self, value: f64) -> Side {
        let beyond = |distance: f64| distance > 0.0 || (self.closed && distance == 0.0);
        let above = self.above.map(|limit| (limit, value - limit));
        let below = self.below.map(|limit| (limit, limit - value));
        let mut side = Side::Inside;
        for (limit, distance) in above.into_iter().chain(below) {
            if beyond(distance) {
                return Side::Outside(limit);
            }
            let is_back = match self.hysteresis > 0.0 {
                true => distance <= -self.hysteresis,
                false => true,
            };
            if !is_back {
                side = Side::Margin;
            }
        }
        side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_outside_within_the_margin_or_back() {
        let mut band = Band {
            above: Some(80.0),
            below: Some(10.0),
            hysteresis: 5.0,
            closed: false,
        };
        for (value, side) in [
            (80.1, Side::Outside(80.0)),
            (80.0, Side::Margin),
            (75.1, Side::Margin),
            (75.0, Side::Inside),
            (15.0, Side::Inside),
            (14.9, Side::Margin),
            (10.0, Side::Margin),
            (9.9, Side::Outside(10.0)),
        ] {
            assert_eq!(band.side(value), side, "{value}");
        }
        band.closed = true;
        assert_eq!(band.side(80.0), Side::Outside(80.0));
        band.hysteresis = 0.0;
        assert_eq!(band.side(79.999), Side::Inside);
        assert_eq!(band.side(-f64::MAX), Side::Outside(10.0));
    }
}
