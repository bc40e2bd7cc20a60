//! The largest prompt, `num_predict` and `num_ctx`.
//!
//! A prompt that is too long is refused: nobody but the client can shorten it rightly. A `num_predict` or `num_ctx` beyond the
//! bound is refused or lowered, as configured, and lowering is told. A request without a `num_predict`, or with a negative one
//! (Ollama's words for "no bound"), gets the bound.

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::refusal::{Kind, Refusal, Scope};
use crate::domain::allowance::Allowance;

/// What happens to a `num_predict` or `num_ctx` beyond its bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AboveMaximum {
    /// The request is refused.
    #[default]
    Refuse,
    /// It is lowered to the bound, and the answer says so.
    Clamp,
}

/// What a request must be changed to. `None`: it stays as it was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    pub num_predict: Option<u64>,
    pub num_ctx: Option<u32>,
}

/// The smallest bound and whose it is.
fn tightest<T: Ord>(parties: &[(Scope, &Allowance)], bound: impl Fn(&Allowance) -> Option<T>) -> Option<(T, Scope)> {
    parties.iter().filter_map(|(scope, allowance)| Some((bound(allowance)?, *scope))).min_by(|a, b| a.0.cmp(&b.0))
}

/// # Errors
/// When the request is larger than one of the parties may ask for.
pub fn decide(parties: &[(Scope, &Allowance)], estimate: &Estimate, above: AboveMaximum) -> Result<Caps, Refusal> {
    if let Some((most, scope)) = tightest(parties, |a| a.max_prompt_tokens)
        && estimate.prompt_tokens > most
    {
        return Err(Refusal::too_large(Kind::PromptTooLarge, scope, most, estimate.prompt_tokens));
    }
    Ok(Caps { num_predict: num_predict(parties, estimate, above)?, num_ctx: num_ctx(parties, estimate, above)? })
}

fn num_predict(parties: &[(Scope, &Allowance)], estimate: &Estimate, above: AboveMaximum) -> Result<Option<u64>, Refusal> {
    let Some((most, scope)) = tightest(parties, |a| a.max_num_predict) else { return Ok(None) };
    match estimate.num_predict.and_then(|asked| u64::try_from(asked).ok()) {
        Some(asked) if asked <= most => Ok(None),
        Some(asked) if above == AboveMaximum::Refuse => Err(Refusal::too_large(Kind::NumPredictTooLarge, scope, most, asked)),
        _ => Ok(Some(most)),
    }
}

fn num_ctx(parties: &[(Scope, &Allowance)], estimate: &Estimate, above: AboveMaximum) -> Result<Option<u32>, Refusal> {
    let Some((most, scope)) = tightest(parties, |a| a.max_num_ctx) else { return Ok(None) };
    match estimate.num_ctx {
        Some(asked) if asked > most && above == AboveMaximum::Refuse => {
            Err(Refusal::too_large(Kind::NumCtxTooLarge, scope, most.into(), asked.into()))
        }
        Some(asked) if asked > most => Ok(Some(most)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(prompt: u64, predict: u64, ctx: u32) -> Allowance {
        let (max_prompt_tokens, max_num_predict, max_num_ctx) = (Some(prompt), Some(predict), Some(ctx));
        Allowance { max_prompt_tokens, max_num_predict, max_num_ctx, ..Allowance::default() }
    }

    fn asked(num_predict: Option<i64>, num_ctx: Option<u32>) -> Estimate {
        Estimate { prompt_tokens: 10, predict_tokens: 1, num_predict, num_ctx }
    }

    #[test]
    fn what_is_beyond_the_bound_is_refused_or_lowered() {
        let key = allowance(10, 100, 4096);
        let decide = |estimate: &Estimate, above| decide(&[(Scope::Key, &key)], estimate, above).map_err(|refusal| refusal.kind);
        for (num_predict, num_ctx, refusing, clamping) in [
            (Some(100), Some(4096), Ok((None, None)), (None, None)),
            (Some(0), None, Ok((None, None)), (None, None)),
            (None, None, Ok((Some(100), None)), (Some(100), None)),
            (Some(-1), None, Ok((Some(100), None)), (Some(100), None)),
            (Some(101), None, Err(Kind::NumPredictTooLarge), (Some(100), None)),
            (Some(5), Some(4097), Err(Kind::NumCtxTooLarge), (None, Some(4096))),
        ] {
            let caps = |(num_predict, num_ctx)| Caps { num_predict, num_ctx };
            let estimate = asked(num_predict, num_ctx);
            assert_eq!(decide(&estimate, AboveMaximum::Refuse), refusing.map(caps), "{estimate:?}");
            assert_eq!(decide(&estimate, AboveMaximum::Clamp), Ok(caps(clamping)), "{estimate:?}");
        }
        let long = Estimate { prompt_tokens: 11, ..asked(Some(1), None) };
        assert_eq!(decide(&long, AboveMaximum::Clamp), Err(Kind::PromptTooLarge));
    }

    #[test]
    fn the_smallest_bound_of_all_counts_and_is_named() {
        let (key, tenant) = (allowance(100, 100, 100), allowance(100, 50, 200));
        let parties = [(Scope::Key, &key), (Scope::Tenant, &tenant), (Scope::Global, &Allowance::default())];
        let refusal = decide(&parties, &asked(Some(60), None), AboveMaximum::Refuse).expect_err("too much");
        assert_eq!((refusal.scope, refusal.limit, refusal.retry_after), (Scope::Tenant, 50, None));
        assert_eq!(decide(&[], &asked(None, Some(1 << 20)), AboveMaximum::Refuse), Ok(Caps::default()));
    }
}
