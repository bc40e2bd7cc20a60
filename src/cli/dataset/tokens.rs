//! How many tokens the rows have, for the model that they are meant for.

use serde_json::{Map, Value, json};

use super::super::args::Dataset;
use super::super::exit::{Exit, Failure};
use super::failure;
use crate::gguf::Header;
use crate::jobs::dataset::tokenise::{Encoder, Options, encode_all};
use crate::jobs::dataset::{Prepared, Side};

/// Statistics by side; null where no model is named.
pub(super) fn count(args: &Dataset, prepared: &Prepared) -> Result<Value, Failure> {
    let Some(path) = &args.model else { return Ok(Value::Null) };
    let model = |why: String| Failure::new(Exit::ModelFile, format!("{}: {why}", path.display()), "");
    let header = Header::read_file(path).map_err(|error| model(error.to_string()))?;
    let options = Options::default();
    let options = Options { sequence_tokens: args.sequence_tokens.unwrap_or(options.sequence_tokens), ..options };
    let encoder = Encoder::from_header(&header, options).map_err(|error| model(error.to_string()))?;
    let mut all = Map::new();
    for side in Side::ALL {
        let rows = prepared.side(side);
        if rows.is_empty() {
            continue;
        }
        let statistics = encode_all(&encoder, rows, &mut |_| Ok(()), &mut |_| Ok(())).map_err(|error| failure(&error))?;
        let share = statistics.label_share();
        let mut statistics = json!(statistics);
        statistics["label_share"] = json!(share);
        all.insert(side.name().to_owned(), statistics);
    }
    Ok(Value::Object(all))
}
