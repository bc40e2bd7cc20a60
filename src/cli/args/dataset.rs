//! What `arriero dataset` takes.

use std::path::PathBuf;

use clap::Args;

use super::{Operating, WorkerSettings};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  arriero dataset chats.jsonl --report
  arriero dataset alpaca.json more.csv --split 80,10,10 --out data
  arriero dataset faq.csv --field q=prompt --field a=completion --model gemma3.gguf
  arriero dataset collected:gemma3:270m --rating good --out data")]
pub struct Dataset {
    /// JSONL, JSON, CSV, TSV, Parquet or text; or `collected[:MODEL]`: what the gateway of the data folder collected.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Folder for `train.jsonl`, `validation.jsonl`, `test.jsonl` and the reports [default: dataset].
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only say what would be made, and why rows would be left out.
    #[arg(long)]
    pub report: bool,
    /// Write over files that are there.
    #[arg(long)]
    pub overwrite: bool,
    /// Parts for training, validation and test [default: 90,5,5].
    #[arg(long, value_name = "A,B,C", value_parser = parts)]
    pub split: Option<Parts>,
    /// Field whose values tell which rows belong together.
    #[arg(long, value_name = "FIELD")]
    pub group: Option<String>,
    /// Decides which row goes where [default: 0].
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How all files are written [default: told by ending and content].
    #[arg(long, value_parser = ["jsonl", "json", "csv", "tsv", "parquet", "text", "document"])]
    pub format: Option<String>,
    /// What a field is, e.g. `question_text=prompt`; repeatable.
    #[arg(long = "field", value_name = "NAME=AS", value_parser = pair)]
    pub fields: Vec<(String, String)>,
    /// Keep only rows in this language (ISO 639-3, e.g. `eng`); repeatable.
    #[arg(long = "language", value_name = "CODE")]
    pub languages: Vec<String>,
    /// Keep rows that say the same or nearly the same.
    #[arg(long)]
    pub keep_duplicates: bool,
    /// Leave secrets and personal data in the rows.
    #[arg(long)]
    pub no_mask: bool,
    /// Share of a file's rows that may be unusable [default: 0.1].
    #[arg(long, value_name = "SHARE")]
    pub max_bad_share: Option<f64>,
    /// Of what was collected: only what was rated so.
    #[arg(long, value_parser = ["good", "bad", "unrated"])]
    pub rating: Option<String>,
    /// Of what was collected: make pairs of corrections and the answers that they are better than.
    #[arg(long)]
    pub preferences: bool,
    /// Model that answers what rows only ask, as a gateway calls it, or a GGUF file or `ollama:TAG`.
    #[arg(long, value_name = "MODEL", conflicts_with = "report", help_heading = "Teacher")]
    pub teacher: Option<String>,
    /// Address of the gateway that serves it, with /v1 at its end where it speaks OpenAI's API [default: that of --url].
    #[arg(long, value_name = "URL", requires = "teacher", conflicts_with = "job", help_heading = "Teacher")]
    pub teacher_url: Option<String>,
    /// Which answers it writes: those that are missing, or the last of every conversation [default: missing].
    #[arg(long, value_parser = ["missing", "all"], requires = "teacher", help_heading = "Teacher")]
    pub teacher_answers: Option<String>,
    /// JSON file with more of what a job of this kind takes: `limits`, `teacher`, `clean`, `split`, `variants`; flags come before it.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// GGUF file of a model: count the tokens of the rows, written by its template.
    #[cfg(feature = "embedded")]
    #[arg(long, value_name = "GGUF", help_heading = "Tokens")]
    pub model: Option<PathBuf>,
    /// Longest row in tokens [default: 2048].
    #[cfg(feature = "embedded")]
    #[arg(long, value_name = "NUMBER", requires = "model", help_heading = "Tokens")]
    pub sequence_tokens: Option<usize>,
    /// Have a running gateway do it in the background; paths are then those that its jobs may read. Prints the id of the job.
    #[arg(long, conflicts_with_all = ["out", "report", "overwrite"])]
    pub job: bool,
    /// With `--job`: the rows are files of this machine, which are sent to the gateway first.
    #[arg(long, requires = "job")]
    pub upload: bool,
    #[command(flatten)]
    pub settings: WorkerSettings,
    #[command(flatten)]
    pub operating: Operating,
}

/// How many parts of the rows each side gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    pub train: f64,
    pub validation: f64,
    pub test: f64,
}

fn parts(text: &str) -> Result<Parts, String> {
    let wrong = || "write three parts, the first above 0, such as 90,5,5".to_owned();
    let numbers: Vec<f64> = text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>().ok_or_else(wrong)?;
    match numbers[..] {
        [train, validation, test] if train > 0.0 && validation >= 0.0 && test >= 0.0 && (train + validation + test).is_finite() => {
            Ok(Parts { train, validation, test })
        }
        _ => Err(wrong()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, is)) if !name.is_empty() && !is.is_empty() => Ok((name.to_owned(), is.to_owned())),
        _ => Err("write it as NAME=AS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_given_as_parts() {
        assert_eq!(parts("8, 1,1"), Ok(Parts { train: 8.0, validation: 1.0, test: 1.0 }));
        assert_eq!(parts("1,0,0"), Ok(Parts { train: 1.0, validation: 0.0, test: 0.0 }));
        for wrong in ["0,1,1", "1,-1,1", "NaN,1,1", "inf,1,1", "1", "1,2", "1,2,3,4", "a,b,c", ""] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
        assert!(pair("a=b=c").is_ok() && pair("=b").is_err() && pair("a=").is_err() && pair("a").is_err());
    }
}
