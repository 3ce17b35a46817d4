//! docs/configuration.md lists every field and flag, and whether it has an effect.

use std::collections::BTreeSet;

use kube_dnat::config::{SETTINGS, Support};

/// Returns the rows of the tables: field, flag, default and effect.
fn rows() -> Vec<[String; 4]> {
    let text = include_str!("../../docs/configuration.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [field, flag, default, here] = cells.as_slice() else {
            panic!("a row has four cells: {row}");
        };
        [field, flag, default, here].map(|cell| (*cell).to_owned())
    });
    cells.collect()
}

/// Returns the texts between backticks.
fn names(cell: &str) -> BTreeSet<String> {
    let names = cell.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn each_setting_has_a_row_with_its_field_and_flags() {
    let rows = rows();
    for setting in SETTINGS {
        let flags = setting.flags.iter().map(|flag| match *flag {
            "v" => "-v".to_owned(),
            flag => format!("--{flag}"),
        });
        let flags: BTreeSet<_> = flags.collect();
        let is_its = |row: &&[String; 4]| {
            names(&row[0]).contains(setting.field)
                || setting.field.is_empty() && names(&row[1]).is_superset(&flags)
        };
        let row = rows.iter().find(is_its);
        let row = row.unwrap_or_else(|| panic!("no row is of {setting:?}"));
        assert!(
            names(&row[1]).is_superset(&flags),
            "{row:?} has not {flags:?}"
        );
        let idle = row[3].starts_with("no effect");
        assert_eq!(idle, setting.support == Support::NoEffect, "{row:?}");
    }
}

#[test]
fn each_row_names_existing_settings() {
    let fields: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.field).collect();
    for row in rows() {
        for field in names(&row[0]) {
            assert!(fields.contains(field.as_str()), "{field} is no field");
        }
    }
}
