//! What is allowed, and what of a [`Reading`] is not.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Reading, Reference};

/// A folder, or a folder within one, and the folders it may import.
pub type Row = (String, Vec<String>);

/// Outside paths that only some modules may name.
pub struct Fence {
    pub paths: &'static [&'static str],
    pub only_in: &'static [&'static str],
}

pub struct Rules {
    pub table: Vec<Row>,
    pub fences: &'static [Fence],
    /// Text that may be quoted in one file only.
    pub names: Vec<String>,
    pub names_only_in: &'static str,
}

/// The library's own name, by which the binary knows it.
const LIBRARY: &str = "arriero";

enum Target {
    /// In the crate: the path below it.
    Inside(Vec<String>),
    Outside,
    /// A name the file itself gave to something that is listed on its own.
    Local,
}

/// Everything that is wrong, one line each, in order.
pub fn violations(reading: &Reading, rules: &Rules) -> Vec<String> {
    let mut wrong: BTreeSet<String> = reading.failures.iter().cloned().collect();
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for reference in &reading.references {
        match target(reading, reference) {
            Target::Inside(path) => {
                wrong.extend(against_table(reference, &path, rules));
                if let (Some(from), Some(to)) = (reference.module.first(), path.first()) {
                    edges.entry(from.clone()).or_default().insert(to.clone());
                }
            }
            Target::Outside => wrong.extend(against_fences(reference, rules)),
            Target::Local => {}
        }
    }
    wrong.extend(missing_rows(reading, &rules.table));
    wrong.extend(against_order(&rules.table));
    wrong.extend(cycle(&edges));
    wrong.extend(quoted_names(reading, rules));
    wrong.into_iter().collect()
}

fn target(reading: &Reading, reference: &Reference) -> Target {
    let (first, rest) = reference.path.split_first().expect("a path has a word");
    match first.as_str() {
        "crate" | LIBRARY => Target::Inside(rest.to_vec()),
        "self" | "super" => Target::Inside(relative(reference)),
        name if !reference.absolute && reading.bound.get(&reference.file).is_some_and(|bound| bound.contains(name)) => Target::Local,
        _ => Target::Outside,
    }
}

/// `self::…` and `super::…` from where they stand.
fn relative(reference: &Reference) -> Vec<String> {
    let mut at = reference.module.clone();
    let rest = reference.path.iter().skip_while(|word| match word.as_str() {
        "self" => true,
        "super" => {
            at.pop();
            true
        }
        _ => false,
    });
    let rest: Vec<_> = rest.cloned().collect();
    at.into_iter().chain(rest).collect()
}

fn against_table(reference: &Reference, path: &[String], rules: &Rules) -> Option<String> {
    let from = reference.module.first()?; // lib.rs itself: it only declares
    let file = reference.file.display();
    let to = match path.first().map(String::as_str) {
        None | Some("*") => return Some(format!("{file}: names the whole crate; name what is meant")),
        Some(to) => to,
    };
    if from == to {
        return None;
    }
    let place = reference.module.join("/");
    let row = rules.table.iter().filter(|(row, _)| is_below(&place, row)).max_by_key(|(row, _)| row.len());
    let (row, allowed) = row?; // a missing row is told once, elsewhere
    if !allowed.iter().any(|folder| folder == to) {
        return Some(format!("{file}: `{row}` may not import `{to}` (`{}`)", path.join("::")));
    }
    let leaf = path.last().expect("not empty");
    let is_type = leaf.starts_with(char::is_uppercase) && !leaf.ends_with("Config");
    (from == "config" && to != "domain" && is_type)
        .then(|| format!("{file}: `config` may import nothing but `Config` types, not `{}`", path.join("::")))
}

fn against_fences(reference: &Reference, rules: &Rules) -> Option<String> {
    let path = reference.path.join("/");
    let place = reference.module.join("/");
    let fence = rules.fences.iter().find(|fence| fence.paths.iter().any(|fenced| is_below(&path, &fenced.replace("::", "/"))))?;
    let allowed = fence.only_in.iter().any(|folder| is_below(&place, folder));
    let words = || format!("{}: `{}` is only for {}", reference.file.display(), reference.path.join("::"), fence.only_in.join(", "));
    (!allowed).then(words)
}

/// Folders without a row, and rows without a folder.
fn missing_rows(reading: &Reading, table: &[Row]) -> Vec<String> {
    let folders: BTreeSet<&str> = reading.modules.iter().filter_map(|module| module.split('/').next()).collect();
    let without = folders.iter().filter(|folder| !folder.is_empty() && !table.iter().any(|(row, _)| row == *folder));
    let gone = table.iter().filter(|(row, _)| !reading.modules.contains(row));
    without
        .map(|folder| format!("`{folder}` is missing from the import table"))
        .chain(gone.map(|(row, _)| format!("the import table has `{row}`, which is not there")))
        .collect()
}

/// A row may name only rows above it: then the table itself cannot ask for a cycle.
fn against_order(table: &[Row]) -> Vec<String> {
    let below = |at: usize, folder: &String| !table[..at].iter().any(|(row, _)| row == folder);
    let rows = table.iter().enumerate();
    rows.flat_map(|(at, (row, allowed))| {
        let wrong = allowed.iter().filter(move |folder| below(at, folder));
        wrong.map(move |folder| format!("the import table lets `{row}` import `{folder}`, which is not above it"))
    })
    .collect()
}

/// The first way from a folder back to itself.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    edges.keys().find_map(|start| way_back(start, &mut vec![start.clone()], &mut BTreeSet::new(), edges))
}

fn way_back(
    start: &str,
    way: &mut Vec<String>,
    visited: &mut BTreeSet<String>,
    edges: &BTreeMap<String, BTreeSet<String>>,
) -> Option<String> {
    let at = way.last()?.clone();
    for next in edges.get(&at).into_iter().flatten().filter(|next| **next != at) {
        if next == start {
            return Some(format!("folders import each other in a circle: {} → {start}", way.join(" → ")));
        }
        if visited.insert(next.clone()) {
            way.push(next.clone());
            if let Some(found) = way_back(start, way, visited, edges) {
                return Some(found);
            }
            way.pop();
        }
    }
    None
}

fn quoted_names(reading: &Reading, rules: &Rules) -> Vec<String> {
    let elsewhere = reading.literals.iter().filter(|(file, _)| !file.ends_with(rules.names_only_in));
    elsewhere
        .filter_map(|(file, text)| {
            let name = rules.names.iter().find(|name| text.contains(name.as_str()))?;
            Some(format!("{}: names the metric `{name}`; only {} does", file.display(), rules.names_only_in))
        })
        .collect()
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads a table `| folder | may import |` from Markdown. Names may be in backquotes and share a row; `everything above` stands
/// for all rows before it, `–` for none.
pub fn table_in(markdown: &str) -> Option<Vec<Row>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect())
    };
    let mut lines = markdown.lines().skip_while(|line| cells(line).is_none_or(|cells| cells[..] != ["folder", "may import"]));
    lines.next()?;
    lines.next()?; // the rule below the heading
    let mut table: Vec<Row> = Vec::new();
    for row in lines.map_while(cells) {
        let [folders, allowed] = &row[..] else { return None };
        let allowed = allowed_in(allowed, &table);
        table.extend(split(folders).map(|folder| (folder, allowed.clone())));
    }
    Some(table)
}

pub fn allowed_in(cell: &str, above: &[Row]) -> Vec<String> {
    if cell.contains("everything above") {
        return above.iter().map(|(row, _)| row.clone()).collect();
    }
    split(cell).filter(|word| word != "–" && word != "-").collect()
}

fn split(cell: &str) -> impl Iterator<Item = String> {
    cell.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty())
}
