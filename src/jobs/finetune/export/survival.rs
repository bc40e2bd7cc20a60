//! How much of what training did to the weights is still there once they are stored.
//!
//! W is a tensor of the base as numbers, Δ what training adds to it, W′ what the file that was written holds. The gain
//! ⟨W′ − W, Δ⟩ / ⟨Δ, Δ⟩ is the share of Δ that survives: 1 where rounding is fine or falls either way, near 0 where W lies on the very
//! grid that W + Δ is rounded to, so that all of Δ is rounded away together. The error ‖W′ − W − Δ‖ / ‖Δ‖ is what rounding adds besides.

use serde::Serialize;

use crate::gguf::TensorKind;

/// The least share of a tensor's change that has to survive.
pub const LEAST_GAIN: f64 = 0.95;

/// Sums over some rows of a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// ⟨W′ − W, Δ⟩
    along: f64,
    /// ⟨Δ, Δ⟩
    delta: f64,
    /// ‖W′ − W − Δ‖²
    rest: f64,
    /// ‖W‖²
    base: f64,
}

impl Sums {
    /// Counts numbers in. `trained`: W + Δ; `stored`: W′.
    pub(super) fn add(&mut self, base: &[f32], trained: &[f32], stored: &[f32]) {
        for ((base, trained), stored) in base.iter().zip(trained).zip(stored) {
            let (base, trained, stored) = (f64::from(*base), f64::from(*trained), f64::from(*stored));
            let delta = trained - base;
            self.along += (stored - base) * delta;
            self.delta += delta * delta;
            self.rest += (stored - trained) * (stored - trained);
            self.base += base * base;
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            along: self.along + other.along,
            delta: self.delta + other.delta,
            rest: self.rest + other.rest,
            base: self.base + other.base,
        }
    }

    /// The share that survives; all of nothing, and none where numbers became too large.
    pub(super) fn gain(&self) -> f64 {
        let gain = if self.delta == 0.0 { 1.0 } else { self.along / self.delta };
        if gain.is_finite() { gain } else { 0.0 }
    }

    fn error(&self) -> f64 {
        if self.delta == 0.0 { 0.0 } else { (self.rest / self.delta).sqrt() }
    }

    /// The size of the change, over that of the base.
    pub(super) fn change(&self) -> f64 {
        if self.base == 0.0 { f64::from(u8::from(self.delta > 0.0)) } else { (self.delta / self.base).sqrt() }
    }
}

/// What became of one tensor that was trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorSurvival {
    pub tensor: String,
    /// How the base has it.
    pub from: &'static str,
    /// How it is stored now.
    pub to: &'static str,
    /// The share of its change that survives.
    pub gain: f64,
    /// What rounding adds, over the size of the change.
    pub error: f64,
    /// How large the change is, over the size of the base.
    pub change: f64,
}

impl TensorSurvival {
    pub(super) fn new(tensor: &str, from: TensorKind, to: TensorKind, sums: Sums) -> Self {
        let (gain, error, change) = (sums.gain(), sums.error(), sums.change());
        Self { tensor: tensor.to_owned(), from: from.name(), to: to.name(), gain, error, change }
    }
}

/// What became of all that was trained, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Survival {
    pub tensors: Vec<TensorSurvival>,
}

impl Survival {
    /// The tensor of which the least is left. `None`: nothing was trained.
    #[must_use]
    pub fn worst(&self) -> Option<&TensorSurvival> {
        self.tensors.iter().min_by(|a, b| a.gain.total_cmp(&b.gain))
    }

    #[expect(clippy::cast_precision_loss, reason = "tensors are few")]
    #[must_use]
    pub fn mean_gain(&self) -> Option<f64> {
        let sum: f64 = self.tensors.iter().map(|tensor| tensor.gain).sum();
        (!self.tensors.is_empty()).then(|| sum / self.tensors.len() as f64)
    }

    /// Whether enough is left of every tensor.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.gain >= LEAST_GAIN)
    }

    /// What is to be said where too little is left.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let lost = self.tensors.iter().filter(|tensor| tensor.gain < LEAST_GAIN).count();
        let worst = self.worst().filter(|worst| worst.gain < LEAST_GAIN)?;
        Some(format!(
            "of {lost} of {} trained tensors less than {LEAST_GAIN} of the change survives; least of {}, stored as {}: {:.3}",
            self.tensors.len(),
            worst.tensor,
            worst.to,
            worst.gain
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(stored: [f32; 2]) -> Sums {
        let mut sums = Sums::default();
        sums.add(&[3.0, 4.0], &[3.5, 3.5], &stored);
        sums
    }

    #[test]
    fn shares_are_those_of_the_projection() {
        for (stored, gain, error) in
            [([3.5, 3.5], 1.0, 0.0), ([3.0, 4.0], 0.0, 1.0), ([3.5, 4.0], 0.5, 0.5_f64.sqrt()), ([4.0, 3.0], 2.0, 1.0)]
        {
            let sums = sums(stored);
            assert!((sums.gain() - gain).abs() < 1e-12 && (sums.error() - error).abs() < 1e-12, "{sums:?}");
            assert!((sums.change() - 0.5_f64.sqrt() / 5.0).abs() < 1e-12);
        }
        let both = sums([3.5, 3.5]).and(sums([3.0, 4.0]));
        assert!((both.gain() - 0.5).abs() < 1e-12);
        assert!((Sums::default().gain() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_worst_tensor_decides() {
        let of = |name: &str, stored| TensorSurvival::new(name, TensorKind::Q4_K, TensorKind::Q8_0, sums(stored));
        let good = Survival { tensors: vec![of("a", [3.5, 3.5])] };
        assert_eq!((good.passes(), good.warning()), (true, None));
        let bad = Survival { tensors: vec![of("a", [3.5, 3.5]), of("b", [3.0, 4.0])] };
        assert_eq!((bad.passes(), bad.worst().map(|worst| worst.tensor.as_str()), bad.mean_gain()), (false, Some("b"), Some(0.5)));
        assert!(bad.warning().expect("too little").contains("least of b, stored as Q8_0: 0.000"));
        let nothing = Survival::default();
        assert!(nothing.passes() && nothing.worst().is_none() && nothing.mean_gain().is_none());
    }
}
