//! A table as nft text, which `nft -f` loads and `nft list` prints.

use std::fmt::{self, Write};

use super::statement::layer;
use super::{
    Chain, DynamicChain, Hook, Program, Set, SetName, Statement, TABLE, TABLE_COMMENT, Table,
    program,
};
use crate::planner::model::Address;
use crate::planner::model::addr::Family;

/// Prints the table of family `A` as nft text, in the layout of `nft list`.
#[must_use]
pub fn render<A: Address>(table: &Table<A>, fixed: &Program) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(table, fixed, &mut text);
    text
}

/// Writes a table.
fn write_table<A: Address>(table: &Table<A>, fixed: &Program, text: &mut String) -> fmt::Result {
    writeln!(text, "table {} {TABLE} {{", layer(A::FAMILY))?;
    write!(text, "\tcomment \"{TABLE_COMMENT}\"")?;
    for name in SetName::all() {
        text.push('\n');
        write_set(table, &fixed.set(name), text)?;
    }
    let dynamic = table
        .dynamic_chains()
        .iter()
        .copied()
        .map(DynamicChain::chain);
    for chain in dynamic.chain(program(fixed)) {
        text.push('\n');
        write_chain(&chain, A::FAMILY, text)?;
    }
    text.push_str("\n}\n");
    Ok(())
}

/// Writes a set or map with its elements.
fn write_set<A: Address>(table: &Table<A>, set: &Set, text: &mut String) -> fmt::Result {
    let name = set.name;
    let kind = match set.data {
        super::ElementType::Nothing => "set",
        super::ElementType::Verdict
        | super::ElementType::Endpoint
        | super::ElementType::Address => "map",
    };
    writeln!(text, "\n\t{kind} {name} {{")?;
    writeln!(text, "\t\t{}", set.declaration(A::FAMILY))?;
    if let Some(size) = set.dynamic {
        writeln!(text, "\t\tsize {size}\n\t\tflags dynamic,timeout")?;
    }
    if set.is_interval() {
        text.push_str("\t\tflags interval\n");
    }
    if set.counter {
        text.push_str("\t\tcounter\n");
    }
    let mut elements = table.elements_of(name).peekable();
    if elements.peek().is_some() {
        text.push_str("\t\telements = { ");
        while let Some(element) = elements.next() {
            write!(text, "{element}")?;
            if elements.peek().is_some() {
                text.push_str(",\n\t\t\t     ");
            }
        }
        text.push_str(" }\n");
    }
    text.push_str("\t}");
    Ok(())
}

/// Writes a chain with its rules.
fn write_chain(chain: &Chain, family: Family, text: &mut String) -> fmt::Result {
    writeln!(text, "\n\tchain {} {{", chain.name)?;
    if let (Some((hook, priority)), Some(kind)) = (chain.hook, chain.chain_type()) {
        let kind = kind.as_str();
        let (hook, priority) = (hook_name(hook), priority_name(hook, priority));
        writeln!(
            text,
            "\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
        )?;
    }
    for rule in &chain.rules {
        text.push_str("\t\t");
        write_rule(rule, family, text)?;
        text.push('\n');
    }
    text.push_str("\t}");
    Ok(())
}

/// Writes the statements of a rule.
fn write_rule(rule: &[Statement], family: Family, text: &mut String) -> fmt::Result {
    for (position, statement) in rule.iter().enumerate() {
        if position > 0 {
            text.push(' ');
        }
        statement.write(family, text)?;
    }
    Ok(())
}

/// Prints a rule, or some statements of one, as nft prints it.
#[must_use]
pub fn rule_text(rule: &[Statement], family: Family) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_rule(rule, family, &mut text);
    text
}

/// Returns nft's name of a hook.
fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// Prints a priority relative to a standard one.
fn relative(name: &str, difference: i32) -> String {
    match difference {
        0 => name.to_owned(),
        1.. => format!("{name} + {difference}"),
        _ => format!("{name} - {}", -difference),
    }
}

/// Prints a priority like nft: a value within ten of a standard priority by the latter's name.
///
/// `dstnat` is a name only at prerouting.
fn priority_name(hook: Hook, priority: i32) -> String {
    match (hook, priority) {
        (Hook::Prerouting, -110..=-90) => relative("dstnat", priority + 100),
        (Hook::Postrouting, 90..=110) => relative("srcnat", priority - 100),
        (_, -10..=10) => relative("filter", priority),
        (_, priority) => priority.to_string(),
    }
}
