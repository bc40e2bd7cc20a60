//! When the best parameters were found, and when there is no more hope of better ones.

use crate::jobs::finetune::checkpoint::{Best, Evaluation, State};
use crate::jobs::finetune::options::{Metric, Options};

/// Takes an evaluation into the state. `true`: nothing better was found for as long as was allowed. As Hugging Face's `EarlyStoppingCallback` counts: whatever is better is the best, but patience is only
/// won by what is better by more than `min_delta`.
pub(super) fn take(state: &mut State, evaluation: &Evaluation, options: &Options) -> bool {
    let figure = evaluation.figure(options.metric);
    let gain = state.best.as_ref().map_or(f64::INFINITY, |best| gain(options.metric, figure, best.figure));
    // What is no number is never better.
    let best = gain > 0.0 && !figure.is_nan();
    state.fruitless = if best && gain > options.min_delta { 0 } else { state.fruitless + 1 };
    if best {
        state.best = Some(Best { step: evaluation.step, figure, checkpoint: String::new() });
    }
    options.patience.is_some_and(|patience| state.fruitless >= patience)
}

fn gain(metric: Metric, figure: f64, before: f64) -> f64 {
    match metric {
        Metric::Loss | Metric::Perplexity => before - figure,
        Metric::PreferenceAccuracy => figure - before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::finetune::checkpoint::Origin;
    use crate::jobs::finetune::objective::Sums;

    #[test]
    fn patience_ends_with_too_many_looks_that_found_too_little() {
        let options = Options { patience: Some(2), min_delta: 0.1, ..Options::default() };
        let mut state = State::new(Origin { data: String::new(), base: String::new(), options: String::new() });
        let mut look = |step, loss| {
            let sums = Sums { loss, weight: 1.0, ..Sums::default() };
            let enough = take(&mut state, &Evaluation::new(step, &sums, Vec::new()), &options);
            (enough, state.best.as_ref().map(|best| best.step))
        };
        assert_eq!(look(1, 3.0), (false, Some(1)));
        assert_eq!(look(2, 2.95), (false, Some(2)));
        assert_eq!(look(3, 2.8), (false, Some(3)));
        assert_eq!(look(4, f64::NAN), (false, Some(3)));
        assert_eq!(look(5, 2.75), (true, Some(5)));
    }

    #[test]
    fn accuracy_is_to_grow() {
        assert!(gain(Metric::PreferenceAccuracy, 0.8, 0.7) > 0.0 && gain(Metric::Perplexity, 8.0, 7.0) < 0.0);
    }
}
