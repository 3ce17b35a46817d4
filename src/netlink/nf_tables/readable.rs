//! Whether libnftnl can parse a rule.
//!
//! libnftnl takes the name of each expression without a check: it reads memory that is not the
//! message's if an expression has no name (`nftnl_expr_parse` of libnftnl 1.2).

use crate::netlink::socket::attribute::{Attribute, Attributes};
use crate::netlink::uapi::nf_tables::{
    NFTA_DYNSET_EXPR, NFTA_DYNSET_EXPRESSIONS, NFTA_EXPR_DATA, NFTA_EXPR_NAME,
    NFTA_RULE_EXPRESSIONS,
};

/// Returns whether each expression of a rule with these attributes has a name.
pub(crate) fn is_readable(rule: &Attributes<'_>) -> bool {
    has_named_expressions(rule, NFTA_RULE_EXPRESSIONS)
}

/// Returns the attributes of this type: libnftnl reads the last one.
fn of_type<'a>(attributes: &Attributes<'a>, kind: u16) -> impl Iterator<Item = Attribute<'a>> {
    let is_of_type = move |attribute: &Attribute<'_>| attribute.kind == kind;
    attributes.clone().filter(is_of_type)
}

/// Returns whether each expression in the lists of this type has a name.
fn has_named_expressions(attributes: &Attributes<'_>, list: u16) -> bool {
    let mut expressions = of_type(attributes, list).flat_map(Attribute::nested);
    expressions.all(is_named)
}

/// Returns whether an expression has a name, and each expression in it, too.
fn is_named(expression: Attribute<'_>) -> bool {
    let expression = expression.nested();
    let names: Vec<_> = of_type(&expression, NFTA_EXPR_NAME).collect();
    // C reads a name up to its NUL.
    if names.is_empty() || !names.iter().all(|name| name.value.contains(&0)) {
        return false;
    }
    // Only `dynset` has expressions in it; in the others, the same types are plain values.
    if !names.iter().any(|name| name.text() == Some("dynset")) {
        return true;
    }
    let mut data = of_type(&expression, NFTA_EXPR_DATA).map(Attribute::nested);
    data.all(|data| {
        of_type(&data, NFTA_DYNSET_EXPR).all(is_named)
            && has_named_expressions(&data, NFTA_DYNSET_EXPRESSIONS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::ffi::Rule;
    use crate::netlink::socket::attribute::{push, push_nested, request, texts};
    use crate::netlink::uapi::nf_tables::NFTA_LIST_ELEM;

    /// Builds an expression with this data; it has a name unless the name is empty.
    fn expression(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = match name {
            "" => Vec::new(),
            name => texts(&[(NFTA_EXPR_NAME, name)]),
        };
        push_nested(&mut bytes, NFTA_EXPR_DATA, data);
        bytes
    }

    /// Builds the message of a rule with one expression.
    fn rule(expression: &[u8]) -> Vec<u8> {
        let (mut list, mut attributes) = (Vec::new(), Vec::new());
        push_nested(&mut list, NFTA_LIST_ELEM, expression);
        push_nested(&mut attributes, NFTA_RULE_EXPRESSIONS, &list);
        request(0xa06, 0, 2, 1, &attributes)
    }

    #[test]
    fn a_rule_with_an_expression_without_a_name_is_not_parsed() {
        assert!(Rule::parse(&rule(&expression("masq", &[]))).is_some());
        assert!(Rule::parse(&rule(&expression("", &[]))).is_none());
        let mut endless = Vec::new();
        push(&mut endless, NFTA_EXPR_NAME, b"masq");
        assert!(Rule::parse(&rule(&endless)).is_none());
    }

    #[test]
    fn an_expression_without_a_name_in_another_is_not_parsed() {
        let nested = |name: &str, of_list: bool| {
            let (mut list, mut data) = (Vec::new(), Vec::new());
            push_nested(&mut list, NFTA_LIST_ELEM, &expression(name, &[]));
            if of_list {
                push_nested(&mut data, NFTA_DYNSET_EXPRESSIONS, &list);
            } else {
                push_nested(&mut data, NFTA_DYNSET_EXPR, &expression(name, &[]));
            }
            Rule::parse(&rule(&expression("dynset", &data))).is_some()
        };
        for of_list in [false, true] {
            assert!(nested("counter", of_list));
            assert!(!nested("", of_list));
        }
    }
}
