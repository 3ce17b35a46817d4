//! What is said at start about a configuration that is taken.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{info, warn};

use super::read::known;
use super::{Config, KubeProxyConfiguration, LenientFields, Mode, SETTINGS, Setting, Support};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigNotice {
    /// What kube-proxy's strict decoder would have refused.
    Lenient {
        /// The file.
        file: PathBuf,
        /// What is passed over in it.
        lenience: LenientFields,
    },
    /// Flags that do not count because there is a file.
    Overridden {
        /// The file.
        file: PathBuf,
        /// The flags, with dashes.
        flags: Vec<String>,
    },
    /// A mode other than nftables was asked for.
    OtherMode(Mode),
    /// Settings that have no meaning here: fields, and flags with dashes.
    WithoutMeaning(Vec<String>),
}

/// What there is to say. `from_file` is the file, what it holds, its defaults set, and what was
/// passed over in it; `given` the names of the flags that were given.
#[must_use]
pub fn notes(
    from_file: Option<(&Path, &KubeProxyConfiguration, LenientFields)>,
    given: &[String],
    config: &Config,
) -> Vec<ConfigNotice> {
    let mut notes = Vec::new();
    let mut idle = Vec::new();
    let is_file = from_file.is_some();
    if let Some((file, written, lenience)) = from_file {
        let file = || file.to_owned();
        let flags = dashed(given, |flag| !flag.counts_beside_a_file());
        if !lenience.is_strict() {
            notes.push(ConfigNotice::Lenient {
                file: file(),
                lenience,
            });
        }
        if !flags.is_empty() {
            notes.push(ConfigNotice::Overridden {
                file: file(),
                flags,
            });
        }
        idle = idle_fields(written, config.mode);
    }
    idle.extend(dashed(given, |flag| {
        flag.here == Support::WithoutMeaning && (!is_file || flag.counts_beside_a_file())
    }));
    match config.mode {
        Mode::Nftables => {}
        // With flags alone nobody has chosen a mode.
        Mode::Unset if !is_file => {}
        mode @ (Mode::Unset | Mode::Iptables | Mode::Ipvs) => {
            notes.push(ConfigNotice::OtherMode(mode));
        }
    }
    if !idle.is_empty() {
        notes.push(ConfigNotice::WithoutMeaning(idle));
    }
    notes
}

/// Those of the flags, with dashes.
fn dashed(given: &[String], which: impl Fn(&Setting) -> bool) -> Vec<String> {
    let flags = given.iter();
    let flags = flags.filter(|flag| Setting::of_flag(flag).is_some_and(&which));
    flags.map(|flag| format!("--{flag}")).collect()
}

/// The fields that differ from their default, to no effect.
fn idle_fields(written: &KubeProxyConfiguration, mode: Mode) -> Vec<String> {
    let defaults = known();
    let written = serde_json::to_value(written).unwrap_or_default();
    let in_section = |field: &str| match mode {
        Mode::Nftables => field.starts_with("nftables."),
        // kube-proxy's ipvs mode masquerades as the section of iptables says.
        Mode::Ipvs => field.starts_with("ipvs.") || field == "iptables.masqueradeAll",
        Mode::Iptables | Mode::Unset => field.starts_with("iptables."),
    };
    let is_idle = |setting: &&Setting| match setting.here {
        Support::Honoured => false,
        Support::WithoutMeaning => true,
        Support::InSectionOfMode => !in_section(setting.field),
    };
    let differs = |setting: &&Setting| {
        let at = |value: &Value| value.pointer(&pointer(setting.field)).cloned();
        at(&written) != at(&defaults)
    };
    let settings = SETTINGS.iter().filter(|setting| !setting.field.is_empty());
    let idle = settings.filter(is_idle).filter(differs);
    idle.map(|setting| setting.field.to_owned()).collect()
}

/// RFC 6901.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

impl ConfigNotice {
    /// Logs it.
    pub fn log(&self) {
        match self {
            Self::Lenient { file, lenience } => {
                let LenientFields { unknown, duplicate } = lenience;
                warn!(
                    file = %file.display(),
                    unknown = unknown.join(", "),
                    duplicate = duplicate.join(", "),
                    "the configuration has fields that are unknown, which are ignored, or written \
                     more than once, of which the last counts"
                );
            }
            Self::Overridden { file, flags } => warn!(
                file = %file.display(),
                flags = flags.join(", "),
                "flags are ignored because the configuration file says what they say"
            ),
            Self::OtherMode(mode) => info!(
                %mode,
                "served by nftables, whatever the mode: node ports are on the node's primary \
                 addresses unless nodePortAddresses says otherwise"
            ),
            Self::WithoutMeaning(settings) => info!(
                settings = settings.join(", "),
                "settings are accepted and have no meaning here"
            ),
        }
    }
}
