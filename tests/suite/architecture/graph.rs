//! Which file of a crate imports what from which: the graph, and the circles in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::code;

/// A module's path from the root of its crate: `["cluster", "call"]`.
pub type Module = Vec<String>;

/// One source file.
pub struct File {
    pub path: PathBuf,
    /// Its text, without comments and the contents of literals.
    pub code: String,
    /// Its code without what is compiled for tests alone.
    pub shipped: String,
    /// The paths in `shipped`.
    paths: Vec<code::Path>,
    /// The names that `shipped` defines.
    pub defined: BTreeSet<String>,
    /// The names that `shipped` uses outside its imports.
    used: BTreeSet<String>,
    /// The modules below it that are compiled for tests alone.
    test_modules: Vec<String>,
}

/// The files of one crate.
#[derive(Default)]
pub struct Crate {
    pub files: BTreeMap<Module, File>,
}

impl Crate {
    /// Reads all of a folder `src`.
    pub fn read(src: &Path) -> Self {
        let texts = files(src).into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(src).unwrap().to_owned(), text)
        });
        Self::of(texts)
    }

    /// The crate whose `src` holds these files.
    pub fn of(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut all = Self::default();
        for (path, text) in texts {
            let code = code::bare(&text);
            let (shipped, test_modules) = code::without_tests(&code);
            let (paths, defined) = (code::paths(&shipped), code::defined(&shipped));
            let used = code::used(&shipped);
            all.files.insert(module(&path), File { path, code, shipped, paths, defined, used, test_modules });
        }
        all
    }

    /// Whether the module is part of what is shipped, and not compiled for tests alone.
    pub fn is_shipped(&self, module: &[String]) -> bool {
        (0..module.len())
            .all(|at| self.files.get(&module[..at]).is_none_or(|parent| !parent.test_modules.contains(&module[at])))
    }

    /// The files that are shipped.
    pub fn shipped(&self) -> impl Iterator<Item = (&Module, &File)> {
        self.files.iter().filter(|(module, _)| self.is_shipped(module))
    }

    /// The types of other files of the crate that this one gives methods.
    pub fn spread(&self, file: &File) -> Vec<String> {
        let mut types = code::inherent(&file.shipped);
        types.retain(|of| !file.defined.contains(of) && self.shipped().any(|(_, other)| other.defined.contains(of)));
        types
    }

    /// Each file that is shipped, and the files from which it imports something.
    pub fn arrows(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let arrows = self.shipped().map(|(module, file)| {
            let used = file.paths.iter().filter(|path| is_used(path, file));
            let mut targets: BTreeSet<_> = used.filter_map(|path| self.resolve(module, &path.segments, 0)).collect();
            targets.remove(module);
            (module.clone(), targets)
        });
        arrows.collect()
    }

    /// The file that defines what `path`, as it stands in `module`, leads to. What is imported by way of a re-export
    /// counts as imported from the file that defines it.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" | "tidings" => Vec::new(),
            "self" => module.to_owned(),
            "super" => module.split_last()?.1.to_owned(),
            name => return self.find(module, name, rest, depth),
        };
        while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
            at.pop()?;
            rest = after;
        }
        match rest.split_first() {
            Some((name, after)) if name != "*" => self.find(&at, name, after, depth).or(Some(at)),
            _ => Some(at),
        }
    }

    /// What `name`, followed by `rest`, leads to in `module`: a module below it, or what it defines or imports.
    fn find(&self, module: &[String], name: &str, rest: &[String], depth: usize) -> Option<Module> {
        let below = [module, &[name.to_owned()]].concat();
        if self.files.contains_key(&below) {
            let found = rest.split_first().filter(|(next, _)| *next != "*");
            return found.and_then(|(next, after)| self.find(&below, next, after, depth)).or(Some(below));
        }
        let file = self.files.get(module)?;
        if depth > 8 || file.defined.contains(name) {
            return None;
        }
        let imports = file.paths.iter().filter_map(|path| Some((path.bound.as_deref()?, &path.segments)));
        let named = imports.clone().find(|(bound, _)| *bound == name);
        if let Some((_, path)) = named {
            return self.resolve(module, &[path, rest].concat(), depth + 1);
        }
        let mut globs = imports.filter(|(bound, path)| *bound == "*" && !path.starts_with(&["super".to_owned()]));
        globs.find_map(|(_, path)| {
            let at = self.resolve(module, path, depth + 1)?;
            let is_here = self.files.get(&at)?.defined.contains(name);
            if is_here { Some(at) } else { self.find(&at, name, rest, depth + 1) }
        })
    }
}

/// A re-export is an arrow only where the file itself uses the name, too.
fn is_used(path: &code::Path, file: &File) -> bool {
    path.bound.as_ref().is_none_or(|bound| !path.is_public || file.used.contains(bound))
}

/// Groups of files each of which imports, over others, itself.
pub fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach: BTreeMap<_, _> = arrows.keys().map(|from| (from, reachable(arrows, from))).collect();
    let mut circles = BTreeSet::new();
    for (from, reached) in &reach {
        if reached.contains(*from) {
            let others = reached.iter().filter(|to| reach.get(to).is_some_and(|back| back.contains(*from)));
            circles.insert(others.cloned().collect::<BTreeSet<_>>());
        }
    }
    circles.into_iter().collect()
}

fn reachable(arrows: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        for to in arrows.get(at).into_iter().flatten() {
            if reached.insert(to.clone()) {
                next.push(to);
            }
        }
    }
    reached
}

/// The module that a file below `src` is.
fn module(path: &Path) -> Module {
    let mut module: Vec<_> = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || (module.len() == 1 && last == "lib")) {
        module.pop();
    }
    module
}

/// All Rust files in a folder and below it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The arrows of a crate of these files, as `from → to`.
fn drawn(texts: &[(&str, &str)]) -> (Vec<String>, usize) {
    let all = Crate::of(texts.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())));
    let arrows = all.arrows();
    let drawn = arrows.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    let drawn = drawn.map(|(from, to)| format!("{} → {}", from.join("::"), to.join("::"))).collect();
    (drawn, circles(&arrows).len())
}

#[test]
fn an_import_by_way_of_a_re_export_leads_to_the_file_that_defines_the_name() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::*;"),
        ("a/mod.rs", "mod one; mod two; pub use one::One; pub use two::{self, Two as Second};"),
        ("a/one.rs", "use super::Second; pub struct One;"),
        ("a/two.rs", "pub struct Two; pub fn f() {}"),
        ("b.rs", "use crate::a::{two, Second}; fn g() { two::f(); crate::One }"),
    ];
    let (drawn, circles) = drawn(&files);
    assert_eq!(drawn, ["a::one → a::two", "b → a::one", "b → a::two"]);
    assert_eq!(circles, 0, "a file that declares and re-exports alone closes no circle");
}

#[test]
fn a_circle_is_found_over_inline_paths_modules_of_modules_and_names_of_the_parent() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "fn f() { super::b::c::g() }"),
        ("b/mod.rs", "mod c;"),
        ("b/c.rs", "use super::super::c::{self, H};"),
        ("c.rs", "use crate::{a::{self as other}}; pub struct H;"),
        ("d.rs", "#[cfg(test)] mod tests { use crate::a; } // crate::b\nuse crate::a;"),
    ];
    let (drawn, circles) = drawn(&files);
    assert_eq!(drawn, ["a → b::c", "b::c → c", "c → a", "d → a"]);
    assert_eq!(circles, 1);
    let parent = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; use b::B; pub struct A;"),
        ("a/b.rs", "use super::A; pub struct B;"),
    ];
    assert_eq!(self::drawn(&parent).1, 1, "what a parent defines itself is no re-export");
}

#[test]
fn what_is_compiled_for_tests_alone_closes_no_circle() {
    let files = [
        ("lib.rs", "mod a; #[cfg(test)] mod t;"),
        ("a.rs", ""),
        ("t.rs", "mod u; use crate::a;"),
        ("t/u.rs", "use super::*;"),
    ];
    assert_eq!(drawn(&files).0, [""; 0]);
}
