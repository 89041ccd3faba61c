//! The modules of a source tree, and which file uses what from which other file.
//!
//! Names are resolved as the compiler does it: through `use` trees with nested braces, `crate`, `self` and `super`,
//! renames, globs, and re-exports. A re-export in a facade (`lib.rs` or a `mod.rs`) is no use by itself. A file that
//! takes a name from a facade uses the file that defines the name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tokens::{Token, end_of_group, tokens};

/// How `main.rs` names the library.
const LIBRARY: &str = "crates_io_mirror";

/// A file uses a name that another file defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// The file that uses it, like `src/store/probe.rs`.
    pub(crate) from: String,
    /// The file that defines it.
    pub(crate) to: String,
    /// The path in the source.
    pub(crate) path: String,
}

/// A path into a library that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct External {
    pub(crate) file: String,
    /// The full path, like `std::env::var`.
    pub(crate) path: String,
}

/// What the files use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) files: BTreeSet<String>,
    pub(crate) ours: BTreeSet<Use>,
    pub(crate) external: BTreeSet<External>,
}

#[derive(Debug, Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    imports: Vec<Import>,
    /// What it defines itself.
    defined: BTreeSet<String>,
    /// Paths outside of `use`, with two segments at least.
    mentions: BTreeSet<Vec<String>>,
    /// Every word outside of `use`.
    words: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Import {
    /// `None` for a glob.
    name: Option<String>,
    path: Vec<String>,
    is_re_export: bool,
}

#[derive(Clone, Debug)]
enum Target {
    Module(usize),
    Item(usize),
    External(Vec<String>),
}

#[derive(Debug, Default)]
struct Tree {
    modules: Vec<Module>,
    library: usize,
}

/// Reads the directory `src` below a directory.
pub(crate) fn uses(root: &Path) -> Uses {
    let mut tree = Tree::default();
    for file in ["src/lib.rs", "src/main.rs"] {
        if root.join(file).is_file() {
            tree.read_file(root, PathBuf::from(file), None);
        }
    }
    tree.uses()
}

impl Tree {
    fn read_file(&mut self, root: &Path, file: PathBuf, parent: Option<usize>) -> usize {
        let source = fs::read_to_string(root.join(&file)).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let directory = if matches!(name, "lib.rs" | "main.rs" | "mod.rs") {
            file.parent().unwrap().to_owned()
        } else {
            file.with_extension("")
        };
        let module = self.add(file.to_str().unwrap(), parent);
        self.read_block(root, &directory, &tokens(&source), module);
        module
    }

    fn add(&mut self, file: &str, parent: Option<usize>) -> usize {
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    /// Reads what stands in a file or between the braces of a module.
    fn read_block(&mut self, root: &Path, directory: &Path, tokens: &[Token], module: usize) {
        let (mut place, mut depth) = (0_usize, 0_usize);
        while let Some(token) = tokens.get(place) {
            let next = tokens.get(place + 1);
            let name = next.and_then(Token::word);
            match (token, name) {
                (Token::Sign('{'), _) => depth += 1,
                (Token::Sign('}'), _) => depth = depth.saturating_sub(1),
                (Token::Word(word), Some(name)) if word == "mod" => {
                    let child = if tokens.get(place + 2) == Some(&Token::Sign('{')) {
                        let child = self.add(&self.modules[module].file.clone(), Some(module));
                        let end = end_of_group(tokens, place + 2);
                        let inner = &tokens[place + 3..end - 1];
                        self.read_block(root, &directory.join(name), inner, child);
                        place = end;
                        child
                    } else {
                        place += 2;
                        let beside = directory.join(format!("{name}.rs"));
                        let file = if root.join(&beside).is_file() {
                            beside
                        } else {
                            directory.join(name).join("mod.rs")
                        };
                        self.read_file(root, file, Some(module))
                    };
                    self.modules[module].children.insert(name.to_owned(), child);
                    continue;
                }
                // `use<'a>` in a type is no import.
                (Token::Word(word), _) if word == "use" && next != Some(&Token::Sign('<')) => {
                    let is_re_export = is_public(&tokens[..place]);
                    let end = (place..tokens.len())
                        .find(|place| tokens[*place] == Token::Sign(';'))
                        .unwrap_or(tokens.len());
                    let imports = &mut self.modules[module].imports;
                    read_use(&tokens[place + 1..end], &[], is_re_export, imports);
                    place = end;
                    continue;
                }
                (Token::Word(word), Some(name)) if depth == 0 && defines(word) => {
                    self.modules[module].defined.insert(name.to_owned());
                }
                (Token::Word(_), _) => {
                    place = self.read_path(tokens, place, module);
                    continue;
                }
                _ => {}
            }
            place += 1;
        }
    }

    /// Reads `a::b::c`, or one word. Returns the place behind it.
    fn read_path(&mut self, tokens: &[Token], begin: usize, module: usize) -> usize {
        let mut path = Vec::new();
        let mut place = begin;
        while let Some(word) = tokens.get(place).and_then(Token::word) {
            path.push(word.to_owned());
            place += 1;
            if tokens.get(place) != Some(&Token::PathSeparator)
                || tokens.get(place + 1).and_then(Token::word).is_none()
            {
                break;
            }
            place += 1;
        }
        let before = begin.checked_sub(1).and_then(|before| tokens.get(before));
        let module = &mut self.modules[module];
        module.words.insert(path[0].clone());
        // Behind `.` stands a method, behind `>::` something of a type that was named already.
        let is_path = !matches!(before, Some(Token::Sign('.') | Token::PathSeparator));
        if is_path && path.len() > 1 {
            module.mentions.insert(path);
        }
        place
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::default();
        for (number, module) in self.modules.iter().enumerate() {
            uses.files.insert(module.file.clone());
            let is_facade = module.file == "src/lib.rs" || module.file.ends_with("/mod.rs");
            for import in &module.imports {
                let is_used = import
                    .name
                    .as_ref()
                    .is_some_and(|name| module.words.contains(name));
                if import.is_re_export && is_facade && !is_used {
                    continue;
                }
                let found = self.resolve(number, &import.path, &mut Vec::new());
                // An imported module is used where something in it is named, which is a mention.
                if !matches!(found, Target::Module(_)) || import.name.is_none() {
                    uses.add(module, &found, &import.path, self);
                }
            }
            for path in &module.mentions {
                // The import of a name is its only use.
                let first = self.resolve(number, &path[..1], &mut Vec::new());
                if matches!(first, Target::Item(_)) {
                    continue;
                }
                let found = self.resolve(number, path, &mut Vec::new());
                uses.add(module, &found, path, self);
            }
        }
        uses
    }

    /// `passed` are the imports on the way here: one that leads to itself is a library of the same name.
    fn resolve(&self, module: usize, path: &[String], passed: &mut Vec<(usize, String)>) -> Target {
        let (first, rest) = path.split_first().unwrap();
        let start = match first.as_str() {
            "crate" => self.root_of(module),
            LIBRARY => self.library,
            "self" => module,
            "super" => self.modules[module].parent.unwrap_or(module),
            _ => {
                let found = self.look_up(module, first, rest, passed);
                return found.unwrap_or_else(|| Target::External(path.to_vec()));
            }
        };
        self.walk(start, rest, passed)
    }

    /// What a path below a module leads to.
    fn walk(&self, module: usize, path: &[String], passed: &mut Vec<(usize, String)>) -> Target {
        match path.split_first() {
            None => Target::Module(module),
            Some((first, rest)) if first == "super" => {
                let parent = self.modules[module].parent.unwrap_or(module);
                self.walk(parent, rest, passed)
            }
            Some((first, rest)) => {
                match self.look_up(module, first, rest, passed) {
                    // Something foreign under a name of ours: the file that re-exports it is used.
                    None | Some(Target::External(_)) => Target::Item(module),
                    Some(found) => found,
                }
            }
        }
    }

    fn look_up(
        &self,
        module: usize,
        name: &str,
        rest: &[String],
        passed: &mut Vec<(usize, String)>,
    ) -> Option<Target> {
        let inside = &self.modules[module];
        if let Some(child) = inside.children.get(name) {
            return Some(self.walk(*child, rest, passed));
        }
        if inside.defined.contains(name) {
            return Some(Target::Item(module));
        }
        let step = (module, name.to_owned());
        if passed.contains(&step) {
            return None;
        }
        passed.push(step);
        let mut imports = inside.imports.iter();
        if let Some(import) = imports.find(|import| import.name.as_deref() == Some(name)) {
            let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
            return Some(self.resolve(module, &path, passed));
        }
        inside
            .imports
            .iter()
            .filter(|import| import.name.is_none())
            .find_map(|glob| match self.resolve(module, &glob.path, passed) {
                Target::Module(below) => self.look_up(below, name, rest, passed),
                Target::Item(_) | Target::External(_) => None,
            })
    }

    fn root_of(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }
}

impl Uses {
    fn add(&mut self, module: &Module, found: &Target, path: &[String], tree: &Tree) {
        let file = module.file.clone();
        match found {
            Target::External(path) => {
                let path = path.join("::");
                self.external.insert(External { file, path });
            }
            Target::Module(to) | Target::Item(to) => {
                let to = tree.modules[*to].file.clone();
                if to != file {
                    let path = path.join("::");
                    self.ours.insert(Use {
                        from: file,
                        to,
                        path,
                    });
                }
            }
        }
    }
}

/// Whether `pub` or `pub(…)` stands at the end.
fn is_public(before: &[Token]) -> bool {
    match before {
        [.., last] if last.is("pub") => true,
        [.., first, Token::Sign('('), _, Token::Sign(')')] => first.is("pub"),
        _ => false,
    }
}

fn defines(word: &str) -> bool {
    matches!(
        word,
        "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
    )
}

/// Reads one tree of a `use`: `a::{b, c as d, e::*}`.
fn read_use(tokens: &[Token], before: &[String], is_re_export: bool, imports: &mut Vec<Import>) {
    let mut path = before.to_vec();
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        match token {
            Token::Word(word) if word == "as" => break,
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('*') => {
                return imports.push(Import {
                    name: None,
                    path,
                    is_re_export,
                });
            }
            Token::Sign('{') => {
                let end = end_of_group(tokens, place);
                for branch in branches(&tokens[place + 1..end - 1]) {
                    read_use(branch, &path, is_re_export, imports);
                }
                return;
            }
            Token::PathSeparator | Token::Sign(_) => {}
        }
        place += 1;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let renamed = tokens.get(place + 1).and_then(Token::word);
    let name = renamed
        .or_else(|| path.last().map(String::as_str))
        .map(str::to_owned);
    if !path.is_empty() {
        imports.push(Import {
            name,
            path,
            is_re_export,
        });
    }
}

/// What stands between the commas of a group.
fn branches(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut branches, mut begin, mut place) = (Vec::new(), 0, 0);
    while let Some(token) = tokens.get(place) {
        match token {
            Token::Sign('{') => place = end_of_group(tokens, place),
            Token::Sign(',') => {
                branches.push(&tokens[begin..place]);
                place += 1;
                begin = place;
            }
            _ => place += 1,
        }
    }
    branches.push(&tokens[begin..]);
    branches.retain(|branch| !branch.is_empty());
    branches
}
