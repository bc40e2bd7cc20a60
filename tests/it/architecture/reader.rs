//! Reads Rust sources and lists what each module names: in `use` trees, in paths, and inside macros and attributes.
//!
//! It follows `mod` declarations from the roots, so it knows each file's place, which files are only for tests, and which files
//! nothing declares. Code under `#[cfg(test)]` is followed but not listed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use syn::buffer::{Cursor, TokenBuffer};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token, UseTree};

/// Path below `src` → text.
pub type Files = BTreeMap<PathBuf, String>;

/// One naming of something elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub file: PathBuf,
    /// Where it stands: `["backends", "ollama"]`.
    pub module: Vec<String>,
    /// What it names, as written: `["crate", "domain", "id"]`.
    pub path: Vec<String>,
    /// Written with `::` in front.
    pub absolute: bool,
}

#[derive(Debug, Default)]
pub struct Reading {
    pub references: Vec<Reference>,
    /// Text in quotes, with the file it is in.
    pub literals: Vec<(PathBuf, String)>,
    /// Every module that has a file, such as `backends/ollama`; the crate's root is the empty one.
    pub modules: BTreeSet<String>,
    /// Files that could not be read, or that nothing declares.
    pub failures: Vec<String>,
    /// Names that a file gives to something inside the crate; they hide outside crates of the same name.
    pub bound: HashMap<PathBuf, HashSet<String>>,
    seen: BTreeSet<PathBuf>,
}

/// Every `.rs` file below a folder.
pub fn files_below(root: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let below = path.strip_prefix(root).expect("below the root").to_owned();
                files.insert(below, std::fs::read_to_string(&path).expect("readable"));
            }
        }
    }
    files
}

/// Reads the library from `lib.rs` and the binary from `main.rs`, whichever are there.
pub fn read(files: &Files) -> Reading {
    let mut reading = Reading::default();
    for (root, module) in [("lib.rs", vec![]), ("main.rs", vec!["main".to_owned()])] {
        if files.contains_key(Path::new(root)) {
            read_file(files, Path::new(root), module, Path::new(""), false, &mut reading);
        }
    }
    let unread: Vec<_> = files.keys().filter(|file| !reading.seen.contains(*file)).cloned().collect();
    reading.failures.extend(unread.iter().map(|file| format!("{}: no module declares this file", file.display())));
    reading
}

fn read_file(files: &Files, file: &Path, module: Vec<String>, children: &Path, test: bool, reading: &mut Reading) {
    reading.seen.insert(file.to_owned());
    reading.modules.insert(module.join("/"));
    match syn::parse_file(&files[file]) {
        Ok(parsed) => Reader { files, file, module, children: children.to_owned(), test, reading }.visit_file(&parsed),
        Err(error) => reading.failures.push(format!("{}: {error}", file.display())),
    }
}

struct Reader<'a> {
    files: &'a Files,
    file: &'a Path,
    module: Vec<String>,
    /// The folder in which the files of child modules lie.
    children: PathBuf,
    test: bool,
    reading: &'a mut Reading,
}

impl Reader<'_> {
    fn name(&mut self, path: Vec<String>, absolute: bool) {
        if !self.test {
            let reference = Reference { file: self.file.to_owned(), module: self.module.clone(), path, absolute };
            self.reading.references.push(reference);
        }
    }

    fn bind(&mut self, name: &str) {
        self.reading.bound.entry(self.file.to_owned()).or_default().insert(name.to_owned());
    }

    fn literal(&mut self, text: String) {
        if self.test {
            return;
        }
        // Attributes name functions in quotes: `#[serde(with = "crate::domain::span")]`.
        if text.starts_with("crate::") && !text.contains(' ') {
            self.name(text.split("::").map(str::to_owned).collect(), false);
        }
        self.reading.literals.push((self.file.to_owned(), text));
    }

    fn use_tree(&mut self, tree: &UseTree, before: &[String], absolute: bool) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        let (path, bound) = match tree {
            UseTree::Path(path) => return self.use_tree(&path.tree, &with(path.ident.to_string()), absolute),
            UseTree::Group(group) => return group.items.iter().for_each(|item| self.use_tree(item, before, absolute)),
            UseTree::Name(name) if name.ident == "self" => (before.to_vec(), before.last().cloned()),
            UseTree::Name(name) => (with(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (with(rename.ident.to_string()), Some(rename.rename.to_string())),
            UseTree::Glob(_) => (with("*".to_owned()), None),
        };
        let inside = path.first().is_some_and(|first| ["crate", "self", "super"].contains(&first.as_str()));
        if let Some(bound) = bound.filter(|_| inside) {
            self.bind(&bound);
        }
        self.name(path, absolute);
    }

    /// Paths and quoted text among tokens that have no grammar of their own.
    fn tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut path = Vec::new();
        let mut colons = 0;
        while !cursor.eof() {
            if let Some((ident, rest)) = cursor.ident() {
                if colons != 2 {
                    self.token_path(&mut path);
                }
                path.push(ident.to_string());
                (cursor, colons) = (rest, 0);
            } else if let Some((punct, rest)) = cursor.punct() {
                colons = if punct.as_char() == ':' { colons + 1 } else { 0 };
                if colons == 0 {
                    self.token_path(&mut path);
                }
                cursor = rest;
            } else {
                self.token_path(&mut path);
                colons = 0;
                cursor = self.group_or_literal(cursor);
            }
        }
        self.token_path(&mut path);
    }

    fn token_path(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(path, false);
        }
    }

    fn group_or_literal<'c>(&mut self, cursor: Cursor<'c>) -> Cursor<'c> {
        if let Some((literal, rest)) = cursor.literal() {
            if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                self.literal(text.value());
            }
            return rest;
        }
        if let Some((inside, _, _, rest)) = cursor.any_group() {
            self.tokens(inside);
            return rest;
        }
        cursor.token_tree().expect("not at the end").1
    }

    /// Reads the file of a `mod name;`, and the files that stand in for it under some condition.
    fn child_files(&mut self, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        let beside = |path: &String| self.file.parent().unwrap_or(Path::new("")).join(path);
        let usual = || vec![self.children.join(format!("{name}.rs")), self.children.join(&name).join("mod.rs")];
        let (always, sometimes) = path_attributes(&item.attrs);
        let own = always.as_ref().map_or_else(usual, |path| vec![beside(path)]);
        let candidates = own.into_iter().chain(sometimes.iter().map(beside));
        let found: Vec<_> = candidates.filter(|file| self.files.contains_key(file)).collect();
        if found.is_empty() {
            self.reading.failures.push(format!("{}: no file for `mod {name}`", self.file.display()));
        }
        let module: Vec<_> = self.module.iter().cloned().chain([name]).collect();
        for file in found {
            let folder = file.parent().unwrap_or(Path::new(""));
            let children = if file.ends_with("mod.rs") { folder.to_owned() } else { folder.join(file.file_stem().expect("a name")) };
            read_file(self.files, &file, module.clone(), &children, self.test, self.reading);
        }
    }

    /// Runs `visit` as test code if the attributes say that it is.
    fn under(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= attributes.iter().any(is_cfg_test);
        visit(self);
        self.test = before;
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        self.under(attributes(item), |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.under(&item.attrs, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.bind(&item.ident.to_string());
        if item.content.is_none() {
            return self.child_files(item);
        }
        let name = item.ident.to_string();
        self.children.push(&name);
        self.module.push(name);
        visit::visit_item_mod(self, item);
        self.module.pop();
        self.children.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &[], item.leading_colon.is_some());
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.name(vec![item.ident.to_string()], true);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One word alone is a local name, or was imported by a `use`.
        if path.segments.len() > 1 {
            let words = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.name(words, path.leading_colon.is_some());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(TokenBuffer::new2(call.tokens.clone()).begin());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        visit::visit_meta_list(self, list);
        self.tokens(TokenBuffer::new2(list.tokens.clone()).begin());
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.literal(literal.value());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, also as `#[cfg(all(test, …))]`.
fn is_cfg_test(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test,"))
}

/// The file in `#[path = "…"]`, and those in `#[cfg_attr(…, path = "…")]`.
fn path_attributes(attributes: &[Attribute]) -> (Option<String>, Vec<String>) {
    let always = attributes.iter().find_map(|attribute| path_in(&attribute.meta));
    let conditional = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg_attr"));
    let metas = conditional.filter_map(|attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok());
    (always, metas.flatten().filter_map(|meta| path_in(&meta)).collect())
}

fn path_in(meta: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
    pair.path.is_ident("path").then(|| text.value())
}
