//! Reads Rust source text as far as the rules of the architecture need it: names, paths, imports, functions.

use std::collections::BTreeSet;

/// A path such as `crate::cluster::Client`, in an import or in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    /// The name that an import gives to what the path leads to (None: the path stands in the code).
    pub bound: Option<String>,
    /// Whether the import is a `pub use`.
    pub is_public: bool,
}

/// `text` without comments, and without the contents of strings and characters. Every line keeps its number.
pub fn bare(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let length = not_code(rest, out.ends_with(is_of_name)).unwrap_or(0);
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the comment or literal that `rest` begins with.
fn not_code(rest: &str, is_inside_a_name: bool) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        let mut depth = 0_usize;
        for (at, _) in rest.char_indices() {
            depth += usize::from(rest[at..].starts_with("/*"));
            if rest[..at].ends_with("*/") {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        return Some(rest.len());
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        return Some(1 + closing_quote(quoted, '"'));
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        let mut chars = quoted.chars();
        let (first, second) = (chars.next()?, chars.next());
        // Otherwise it is a lifetime.
        return (first == '\\' || second == Some('\'')).then(|| 1 + closing_quote(quoted, '\''));
    }
    if is_inside_a_name {
        return None;
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = raw.chars().take_while(|c| *c == '#').count();
    let quoted = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest.len() - quoted.len() + quoted.find(&end).map_or(quoted.len(), |at| at + end.len()))
}

/// The length up to and with the quote that ends a literal.
fn closing_quote(quoted: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in quoted.char_indices() {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    quoted.len()
}

/// [`bare`] code without what is compiled for tests alone, and the names of the modules among that.
pub fn without_tests(code: &str) -> (String, Vec<String>) {
    const TEST: &str = "#[cfg(test)]";
    let (mut out, mut modules, mut rest) = (String::new(), Vec::new(), code);
    while let Some(at) = rest.find(TEST) {
        let item = &rest[at + TEST.len()..];
        let end = end_of_item(item);
        let named: Vec<_> = words(&item[..end]).collect();
        if let (Some(at), true) = (named.iter().position(|word| *word == "mod"), item[..end].ends_with(';')) {
            modules.extend(named.get(at + 1).map(|name| (*name).to_owned()));
        }
        out.push_str(&rest[..at]);
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    (out, modules)
}

/// The length of an item: up to and with its body, or its semicolon.
fn end_of_item(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The names and keywords of `code`.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_of_name(c)).filter(|word| !word.is_empty())
}

/// The names of the types and traits that [`bare`] code defines.
pub fn types(code: &str) -> Vec<String> {
    let words: Vec<_> = words(code).collect();
    let defined = words.windows(2).filter(|pair| matches!(pair[0], "struct" | "enum" | "trait" | "union"));
    defined.map(|pair| pair[1].to_owned()).collect()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Names, `::`, and each other character that is not a space.
fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(c) = rest.chars().next() {
        let length = match c {
            c if is_of_name(c) => rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// All paths in [`bare`] code: each import, with its groups taken apart, and each path of two names or more.
pub fn paths(code: &str) -> Vec<Path> {
    let (tokens, mut paths, mut at) = (tokens(code), Vec::new(), 0);
    while at < tokens.len() {
        let before = |count: usize| at.checked_sub(count).map_or("", |at| tokens[at]);
        if tokens[at] == "use" && tokens.get(at + 1) != Some(&"<") {
            let end = tokens[at..].iter().position(|token| *token == ";").map_or(tokens.len(), |length| at + length);
            // Nothing but `pub(crate)` and its like ends so before an import.
            let is_public = matches!(before(1), "pub" | ")");
            imports(&tokens[at + 1..end], &[], is_public, &mut paths);
            at = end;
        } else if tokens[at].starts_with(is_of_name) && !(before(1) == "::" && before(2).ends_with(continues)) {
            let mut end = at + 1;
            while tokens.get(end) == Some(&"::")
                && tokens.get(end + 1).is_some_and(|token| token.starts_with(is_of_name))
            {
                end += 2;
            }
            // `pub(in crate::a)` imports nothing.
            if end > at + 1 && !(before(1) == "in" && before(3) == "pub") {
                let segments = tokens[at..end].iter().filter(|token| **token != "::").map(|token| (*token).to_owned());
                paths.push(Path { segments: segments.collect(), bound: None, is_public: false });
            }
            at = end;
        } else {
            at += 1;
        }
    }
    paths
}

/// Whether a `::` after this continues a path. A path may begin with `::` itself.
fn continues(c: char) -> bool {
    is_of_name(c) || c == '>'
}

/// The paths of one tree of imports below `prefix`.
fn imports(tree: &[&str], prefix: &[String], is_public: bool, paths: &mut Vec<Path>) {
    let mut segments = prefix.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match tree[at] {
            "::" => {}
            "{" => {
                for part in parts(&tree[at + 1..tree.len() - 1]) {
                    imports(part, &segments, is_public, paths);
                }
                return;
            }
            "as" => break,
            name => segments.push(name.to_owned()),
        }
        at += 1;
    }
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    let bound =
        if at < tree.len() { tree.get(at + 1).map(|name| (*name).to_owned()) } else { segments.last().cloned() };
    if !tree.is_empty() {
        paths.push(Path { segments, bound, is_public });
    }
}

/// The parts of a group, between the commas that are not inside a group of their own.
fn parts<'a, 'b>(group: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, token) in group.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

/// The names that [`bare`] code defines, at any depth.
pub fn defined(code: &str) -> BTreeSet<String> {
    const KINDS: [&str; 8] = ["const", "enum", "fn", "static", "struct", "trait", "type", "macro_rules"];
    let words: Vec<_> = words(code).collect();
    words.windows(2).filter(|pair| KINDS.contains(&pair[0])).map(|pair| pair[1].to_owned()).collect()
}

/// The types that [`bare`] code gives methods of their own, rather than those of a trait.
pub fn inherent(code: &str) -> Vec<String> {
    let tokens = tokens(code);
    let starts = tokens.iter().enumerate().filter(|(at, token)| {
        // Not the `impl` of an argument or a result.
        **token == "impl" && at.checked_sub(1).is_none_or(|before| matches!(tokens[before], "}" | ";" | "]"))
    });
    let types = starts.filter_map(|(at, _)| {
        let end = tokens[at..].iter().position(|token| *token == "{")?;
        let (mut depth, mut name) = (0_usize, None);
        for token in &tokens[at + 1..at + end] {
            match *token {
                "<" => depth += 1,
                ">" => depth = depth.saturating_sub(1),
                "for" if depth == 0 => return None,
                "where" => break,
                token if depth == 0 && token.starts_with(is_of_name) => name = Some(token.to_owned()),
                _ => {}
            }
        }
        name
    });
    types.collect()
}

/// The names in [`bare`] code outside its imports and its declarations of modules.
pub fn used(code: &str) -> BTreeSet<String> {
    let (tokens, mut names, mut at) = (tokens(code), BTreeSet::new(), 0);
    while at < tokens.len() {
        let is_declaration = tokens[at] == "mod" && tokens.get(at + 2) == Some(&";");
        if is_declaration || (tokens[at] == "use" && tokens.get(at + 1) != Some(&"<")) {
            at += tokens[at..].iter().position(|token| *token == ";").unwrap_or(tokens.len() - at);
        } else {
            names.insert(tokens[at].to_owned());
            at += 1;
        }
    }
    names
}

/// The functions of [`bare`] code that have a body, and the lines of each.
pub fn functions(code: &str) -> Vec<(String, usize)> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_of_name)) {
        let function = &code[at..];
        let text = &function[..end_of_item(function)];
        if text.ends_with('}') {
            functions.extend(words(text).nth(1).map(|name| (name.to_owned(), text.lines().count())));
        }
    }
    functions
}

#[test]
fn comments_and_literals_are_no_code_and_lines_keep_their_numbers() {
    let text = "a // crate::b\n\"crate::c \\\" \" /* d /* e */\n */ 'f' '\\'' <'g> br#\"h \" \"# i\nr\"j\" bar\"k\"";
    let code = bare(text);
    assert_eq!(words(&code).collect::<Vec<_>>(), ["a", "g", "i", "bar"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn what_is_compiled_for_tests_alone_is_left_out() {
    let text = "a();\n#[cfg(test)]\nmod model;\n#[cfg(test)]\nfn b(c: [u8; 3]) { d() }\n#[cfg(test)]\nmod tests {\n e {} }\nf()";
    let (code, modules) = without_tests(&bare(text));
    assert_eq!((words(&code).collect::<Vec<_>>(), modules), (vec!["a", "f"], vec!["model".to_owned()]));
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn imports_are_read_with_their_groups_and_names_and_paths_where_they_stand() {
    let code = "pub(crate) use a::{self, b::{C, D as E}};\nuse f::*;\nfn g() -> impl Sized + use<'_> { ::h::i::<J>(crate::k) }\npub(in crate::l) struct M;";
    let read: Vec<_> = paths(code).into_iter().map(|p| (p.segments.join("::"), p.bound, p.is_public)).collect();
    let import = |path: &str, bound: &str, is_public| (path.to_owned(), Some(bound.to_owned()), is_public);
    let inline = |path: &str| (path.to_owned(), None, false);
    let imports = [
        import("a", "a", true),
        import("a::b::C", "C", true),
        import("a::b::D", "E", true),
        import("f::*", "*", false),
    ];
    assert_eq!(read, [&imports[..], &[inline("h::i"), inline("crate::k")]].concat());
}

#[test]
fn only_methods_of_a_types_own_are_its_inherent_ones() {
    let code = "impl<T: A<B>> C<T> where T: D {} impl fmt::E for F {} fn g(h: impl I) -> impl J { } impl k::L {}";
    assert_eq!(inherent(code), ["C", "L"]);
}

#[test]
fn functions_are_measured_from_their_name_to_the_end_of_their_body() {
    let code = "trait A { fn b(); }\nasync fn c(d: [u8; 2])\n{\n}\nfn e() { fn f() {\n} }";
    let expected = [("c", 3), ("e", 2), ("f", 2)];
    assert_eq!(functions(code), expected.map(|(name, lines)| (name.to_owned(), lines)));
}

#[test]
fn types_are_found_whatever_they_are() {
    let code = "pub(crate) struct A<T>(T); enum B { C } trait D: E {} impl A<B> { type F = B; }";
    assert_eq!(types(code), ["A", "B", "D"]);
}
