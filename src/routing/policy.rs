//! The order in which the backends that have a model are tried.

use crate::backends::Health;

/// What the choice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub health: Health,
    /// Whether the model's weights are in that backend's memory now.
    pub loaded: bool,
    /// Generations running there now.
    pub in_flight: usize,
}

impl Candidate {
    /// Smaller is better: one that answers, then one that need not load, then the least busy.
    fn rank(&self) -> (bool, bool, usize) {
        (matches!(self.health, Health::Down(_)), !self.loaded, self.in_flight)
    }
}

/// The candidates' indices, best first. Equals keep their configured order. One that is down stays in the list, at its end: when
/// nothing better is left, trying it is the only way to find out that it is back.
pub fn order(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| candidates[*index].rank());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(health: Health, loaded: bool, in_flight: usize) -> Candidate {
        Candidate { health, loaded, in_flight }
    }

    #[test]
    fn health_beats_residence_beats_load() {
        let down = || Health::Down("refused".into());
        assert_eq!(order(&[candidate(down(), true, 0), candidate(Health::Up, false, 9)]), [1, 0]);
        assert_eq!(order(&[candidate(Health::Up, false, 0), candidate(Health::Up, true, 9)]), [1, 0]);
        assert_eq!(order(&[candidate(Health::Up, true, 2), candidate(Health::Up, true, 1)]), [1, 0]);
        assert_eq!(order(&[candidate(Health::Up, true, 1), candidate(Health::Unknown, true, 1)]), [0, 1]);
        assert!(order(&[]).is_empty());
    }
}
