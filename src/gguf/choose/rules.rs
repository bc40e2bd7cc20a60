//! The mixtures: which tensors of a file get more bits than the rest.

use super::{Category, FileType, Model, TensorKind, order};

/// The choice for one tensor after another.
pub(super) struct Rules<'a> {
    file_type: FileType,
    model: &'a Model,
    has_importance: bool,
    /// Whether the token embeddings serve as output too.
    is_tied: bool,
    value_count: usize,
    /// How many have been seen.
    values: usize,
    downs: usize,
}

impl<'a> Rules<'a> {
    pub(super) fn new(file_type: FileType, model: &'a Model, categories: &[Category], has_importance: bool) -> Self {
        let is_tied = !categories.contains(&Category::Output);
        let value_count = categories.iter().filter(|category| **category == Category::AttentionValue).count();
        Self { file_type, model, has_importance, is_tied, value_count, values: 0, downs: 0 }
    }

    /// The format of the next tensor, which may not fit its rows of `row` numbers yet.
    pub(super) fn kind(&mut self, name: &str, row: u64, category: Category) -> TensorKind {
        match category {
            Category::Output => self.output(row),
            Category::TokenEmbedding if self.is_tied => self.output(row),
            Category::AttentionValue => self.value(),
            Category::AttentionKey if self.has_eight_experts() => TensorKind::Q8_0,
            Category::AttentionOutput => self.attention_output(),
            Category::FeedForwardDown => self.down(name),
            _ => self.file_type.base(),
        }
    }

    fn is_falcon(&self) -> bool {
        self.model.architecture == "falcon"
    }

    fn has_eight_experts(&self) -> bool {
        self.model.expert_count == 8
    }

    fn output(&self, row: u64) -> TensorKind {
        let base = self.file_type.base();
        if self.is_falcon() || !row.is_multiple_of(base.block_size()) || base == TensorKind::Q8_0 {
            return TensorKind::Q8_0;
        }
        TensorKind::Q6_K
    }

    fn value(&mut self) -> TensorKind {
        let mut kind = self.value_of_mixture();
        if self.model.is_70b() && matches!(kind, TensorKind::Q3_K | TensorKind::Q4_K) {
            kind = TensorKind::Q5_K;
        }
        if self.has_eight_experts() {
            kind = TensorKind::Q8_0;
        }
        self.values += 1;
        kind
    }

    fn value_of_mixture(&self) -> TensorKind {
        use FileType as F;
        use TensorKind as K;
        let is_shared = self.model.sharing() >= 4;
        match self.file_type {
            F::Q2_K | F::Q2_K_S if is_shared => K::Q4_K,
            F::Q2_K => K::Q3_K,
            F::Q3_K_M if self.values >= 2 => K::Q4_K,
            F::Q3_K_M | F::Q3_K_L => K::Q5_K,
            F::IQ4_NL | F::IQ4_XS if is_shared => K::Q5_K,
            F::Q4_K_M | F::Q5_K_M if deserves_more(self.values, self.value_count) => K::Q6_K,
            F::Q4_K_S if self.values < 4 => K::Q5_K,
            other => other.base(),
        }
    }

    fn attention_output(&self) -> TensorKind {
        use FileType as F;
        use TensorKind as K;
        match self.file_type {
            F::Q3_K_L if self.is_falcon() => K::Q4_K,
            other if self.is_falcon() => other.base(),
            F::Q2_K | F::Q3_K_S | F::Q3_K_M | F::IQ4_NL | F::IQ4_XS | F::Q4_K_S | F::Q4_K_M if self.has_eight_experts() => K::Q5_K,
            other if self.has_eight_experts() => other.base(),
            F::Q2_K => K::Q3_K,
            F::Q3_K_M => K::Q4_K,
            F::Q3_K_L => K::Q5_K,
            other => other.base(),
        }
    }

    fn down(&mut self, name: &str) -> TensorKind {
        let count = self.model.block_count as usize;
        let layer = self.layer(name);
        self.downs += 1;
        if self.is_falcon() { self.falcon_down(layer, count) } else { self.down_of_mixture(layer, count) }
    }

    /// The block that a matrix belongs to: with experts by its name, else by counting.
    fn layer(&self, name: &str) -> usize {
        let named = order::block(name).and_then(|block| usize::try_from(block).ok());
        if self.model.expert_count > 1 { named.unwrap_or(self.downs) } else { self.downs }
    }

    fn down_of_mixture(&self, layer: usize, count: usize) -> TensorKind {
        use FileType as F;
        use TensorKind as K;
        let is_early = layer < count / 8;
        match self.file_type {
            F::Q2_K => K::Q3_K,
            F::Q2_K_S if is_early => K::Q4_K,
            F::Q3_K_M if layer < count / 16 => K::Q5_K,
            F::Q3_K_M => K::Q4_K,
            F::Q3_K_L => K::Q5_K,
            F::Q4_K_M | F::Q5_K_M if deserves_more(layer, count) => K::Q6_K,
            F::IQ4_NL | F::IQ4_XS if is_early && !self.has_importance => K::Q5_K,
            F::Q4_K_S if is_early => K::Q5_K,
            // With an importance matrix the first few can go astray, says llama.cpp; a minimum holds them.
            F::Q4_0 if is_early && self.has_importance => K::Q4_1,
            F::Q5_0 if is_early && self.has_importance => K::Q5_1,
            other => other.base(),
        }
    }

    fn falcon_down(&self, layer: usize, count: usize) -> TensorKind {
        use FileType as F;
        use TensorKind as K;
        match self.file_type {
            F::Q3_K_M if layer < count / 16 => K::Q5_K,
            F::Q3_K_M if deserves_more(layer, count) => K::Q4_K,
            F::Q3_K_M => K::Q3_K,
            F::Q4_K_M if layer < count / 16 => K::Q6_K,
            F::Q4_K_M if deserves_more(layer, count) => K::Q5_K,
            F::Q3_K_L | F::Q4_K_M | F::Q4_K_S => K::Q4_K,
            _ => self.down_of_mixture(layer, count),
        }
    }
}

/// The first and the last eighth, and every third between.
fn deserves_more(index: usize, count: usize) -> bool {
    index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2
}
