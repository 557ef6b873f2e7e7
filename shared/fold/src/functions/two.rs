//! Numbers of two doubles: about 106 bits, of which the second double holds what the first rounds away.
//!
//! By Dekker ("A floating-point technique for extending the available precision", 1971) and Knuth (The Art of Computer
//! Programming, 4.2.2).

/// The sum of two doubles, the second at most half a unit in the last place of the first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Two {
    high: f64,
    low: f64,
}

impl Two {
    pub(super) fn of(value: f64) -> Self {
        Self { high: value, low: 0.0 }
    }

    pub(super) fn of_parts(high: f64, low: f64) -> Self {
        Self { high, low }
    }

    pub(super) fn parts(self) -> [f64; 2] {
        [self.high, self.low]
    }

    /// The nearest double.
    pub(super) fn value(self) -> f64 {
        self.high + self.low
    }

    /// The exact difference of two doubles.
    pub(super) fn difference(a: f64, b: f64) -> Self {
        sum(a, -b)
    }

    /// The sum, with an error of 106 bits below the larger of the two: with fewer operations than [`plus`](Self::plus), whose error is that
    /// far below the sum.
    pub(super) fn plus_about(self, other: Self) -> Self {
        let high = sum(self.high, other.high);
        normal(high.high, high.low + (self.low + other.low))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let high = sum(self.high, other.high);
        let low = sum(self.low, other.low);
        let first = normal(high.high, high.low + low.high);
        normal(first.high, first.low + low.low)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.plus(Self { high: -other.high, low: -other.low })
    }

    pub(super) fn times(self, other: Self) -> Self {
        let product = product(self.high, other.high);
        normal(product.high, product.low + (self.high * other.low + self.low * other.high))
    }

    pub(super) fn over(self, divisor: f64) -> Self {
        let first = self.high / divisor;
        let rest = self.minus(product(first, divisor));
        let second = rest.high / divisor;
        let rest = rest.minus(product(second, divisor));
        let quotient = normal(first, second);
        normal(quotient.high, quotient.low + rest.high / divisor)
    }
}

/// The exact sum of two doubles.
fn sum(a: f64, b: f64) -> Two {
    let high = a + b;
    let part = high - a;
    exact(high, (a - (high - part)) + (b - part))
}

/// The sum of two doubles of which the first is the larger.
fn normal(a: f64, b: f64) -> Two {
    let high = a + b;
    exact(high, b - (high - a))
}

/// The exact product of two doubles.
fn product(a: f64, b: f64) -> Two {
    let high = a * b;
    let ([a1, a2], [b1, b2]) = (halves(a), halves(b));
    exact(high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2)
}

/// A double as the sum of two of 26 bits each.
fn halves(value: f64) -> [f64; 2] {
    let scaled = value * 134_217_729.0; // 2^27 + 1
    let high = scaled - (scaled - value);
    [high, value - high]
}

/// What overflows has no second part.
fn exact(high: f64, low: f64) -> Two {
    Two { high, low: if low.is_finite() { low } else { 0.0 } }
}

#[cfg(test)]
mod tests {
    use super::Two;

    #[test]
    fn what_a_double_rounds_away_is_kept() {
        let tenth = Two::of(1.0).over(10.0);
        assert_eq!(tenth.times(Two::of(10.0)).minus(Two::of(1.0)).value(), 0.0);
        assert_eq!(Two::of(1e16).plus(Two::of(1.0)).minus(Two::of(1e16)).value(), 1.0);
        assert_eq!(Two::of(1e30).plus(Two::of(1.0)).minus(Two::of(1e30)).value(), 1.0);
        let third = Two::of(1.0).over(3.0);
        assert!((third.times(Two::of(3.0)).minus(Two::of(1.0)).value()).abs() < 1e-31);
        assert_eq!(Two::of(f64::MAX).plus(Two::of(f64::MAX)).value(), f64::INFINITY);
    }
}
