//! The sources as `syn` parses them: the paths that a module names, and where it is unsafe.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use syn::visit::{self, Visit};
use syn::{
    Attribute, ExprUnsafe, Item, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, Signature, UseTree,
    Visibility,
};

/// A source file, and what it names outside its tests.
pub(crate) struct Source {
    /// Its path below `src`.
    pub file: PathBuf,
    /// The path of its module: `["netlink", "socket"]`.
    pub module: Vec<String>,
    /// Every path it names, from the root: `["crate", "netlink", "Kernel"]`, `["std", "fs"]`.
    pub named: Vec<Vec<String>>,
    /// Whether it has an unsafe block, function or implementation.
    pub is_unsafe: bool,
}

/// Every file of `src`, parsed once.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(parse);
    &SOURCES
}

fn parse() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let sources: Vec<_> = files.iter().map(|file| source(&root, file)).collect();
    assert!(sources.len() > 100, "{} has few files", root.display());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

fn source(root: &Path, path: &Path) -> Source {
    let file = path.strip_prefix(root).unwrap().to_owned();
    let mut module: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    let parsed = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
    let mut reader = Reader {
        module: module.clone(),
        named: Vec::new(),
        is_unsafe: false,
    };
    reader.visit_file(&parsed);
    Source {
        file,
        module,
        named: reader.named,
        is_unsafe: reader.is_unsafe,
    }
}

struct Reader {
    module: Vec<String>,
    named: Vec<Vec<String>>,
    is_unsafe: bool,
}

impl Reader {
    /// Takes in a path, with `self` and `super` resolved.
    fn name(&mut self, path: &[String]) {
        let mut from_root = Vec::new();
        let mut rest = path;
        if matches!(path.first().map(String::as_str), Some("self" | "super")) {
            from_root = vec!["crate".to_owned()];
            from_root.extend(self.module.iter().cloned());
            while let Some((first, after)) = rest.split_first() {
                match first.as_str() {
                    "self" => {}
                    "super" => {
                        from_root.pop();
                    }
                    _ => break,
                }
                rest = after;
            }
        }
        from_root.extend(rest.iter().cloned());
        self.named.push(from_root);
    }

    fn name_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |ident: &dyn ToString| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.name_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.name(&with(&name.ident)),
            UseTree::Rename(rename) => self.name(&with(&rename.ident)),
            UseTree::Glob(_) => self.name(before),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.name_tree(before, tree);
                }
            }
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "`syn::Item` is non-exhaustive"
        )]
        let is_for_tests = match item {
            Item::Mod(ItemMod { attrs, .. })
            | Item::Use(ItemUse { attrs, .. })
            | Item::Fn(ItemFn { attrs, .. })
            | Item::Impl(ItemImpl { attrs, .. }) => is_for_tests(attrs),
            _ => false,
        };
        if !is_for_tests {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.name_tree(&[], &item.tree);
    }

    /// `pub(crate)` is no import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        let names: Vec<_> = segments.map(|segment| segment.ident.to_string()).collect();
        self.name(&names);
        visit::visit_path(self, path);
    }

    /// The tokens of a macro are not parsed: every path in them is found by its `::`.
    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        let text = item.tokens.to_string().replace(" :: ", "::");
        let is_apart = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
        for path in text.split(is_apart).filter(|word| word.contains("::")) {
            let names: Vec<_> = path.split("::").map(str::to_owned).collect();
            self.name(&names);
        }
    }

    fn visit_expr_unsafe(&mut self, block: &'ast ExprUnsafe) {
        self.is_unsafe = true;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.is_unsafe |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast Signature) {
        self.is_unsafe |= signature.unsafety.is_some();
        visit::visit_signature(self, signature);
    }
}
