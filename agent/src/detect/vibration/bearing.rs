//! The rates at which a damaged rolling bearing knocks, from its geometry.
//!
//! R. B. Randall, J. Antoni, "Rolling element bearing diagnostics: a tutorial", Mechanical Systems
//! and Signal Processing 25 (2011), section 2.1, equations 1 to 4.

/// The geometry of a rolling bearing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Bearing {
    /// Rolling elements.
    pub elements: u32,
    /// Diameter of an element, mm.
    pub element_mm: f64,
    /// Pitch diameter, mm.
    pub pitch_mm: f64,
    /// Contact angle, degrees.
    pub angle_deg: f64,
}

impl Bearing {
    /// Times a turn of the shaft: elements over a spot of the outer race (BPFO), of the inner race
    /// (BPFI), an element around itself (BSF), the cage (FTF).
    pub fn rates(&self) -> [f64; 4] {
        let ratio = self.element_mm / self.pitch_mm * self.angle_deg.to_radians().cos();
        let half = f64::from(self.elements) / 2.0;
        [
            half * (1.0 - ratio),
            half * (1.0 + ratio),
            self.pitch_mm / self.element_mm / 2.0 * (1.0 - ratio * ratio),
            (1.0 - ratio) / 2.0,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An SKF 6205-2RS JEM, the drive end bearing of the Case Western Reserve University's bearing
    /// data center, which states these four rates.
    #[test]
    fn the_rates_of_a_known_bearing_come_out() {
        let bearing = Bearing {
            elements: 9,
            element_mm: 7.94,
            pitch_mm: 39.04,
            angle_deg: 0.0,
        };
        let stated = [3.5848, 5.4152, 4.7135 / 2.0, 0.39828];
        for (rate, stated) in bearing.rates().into_iter().zip(stated) {
            assert!((rate - stated).abs() < 1e-3 * stated, "{rate} {stated}");
        }
        // Every element passes each race once while cage and race turn against each other.
        let [outer, inner, _, cage] = bearing.rates();
        assert!((outer + inner - 9.0).abs() < 1e-12);
        assert!((outer - 9.0 * cage).abs() < 1e-12);
    }
}
