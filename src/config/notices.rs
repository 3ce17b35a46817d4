//! The notices that the daemon logs at startup about a valid configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{info, warn};

use super::read::{default_fields, to_json};
use super::{
    AcceptedTypes, Config, KubeProxyConfiguration, LenientFields, Mode, SETTINGS, Setting, Support,
};
use crate::logging::LogEvent;

/// A notice about a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigNotice {
    /// The file has fields that kube-proxy's strict decoder rejects.
    Lenient {
        /// The file.
        file: PathBuf,
        /// The ignored fields.
        lenience: LenientFields,
    },
    /// Flags have no effect because a file is given.
    Overridden {
        /// The file.
        file: PathBuf,
        /// The flags, with dashes.
        flags: Vec<String>,
    },
    /// The configured mode is not nftables.
    OtherMode(Mode),
    /// Settings have no effect: fields, and flags with dashes.
    NoEffect(Vec<String>),
}

/// Returns the notices about a configuration.
///
/// `from_file` is the path of the file, its contents with defaults, and its ignored fields. `given`
/// has the names of the flags that were given.
#[must_use]
pub fn notices(
    from_file: Option<(&Path, &KubeProxyConfiguration, LenientFields)>,
    given: &[String],
    config: &Config,
) -> Vec<ConfigNotice> {
    let mut notices = Vec::new();
    let mut without_effect = Vec::new();
    let is_file = from_file.is_some();
    if let Some((file, written, lenience)) = from_file {
        let file = || file.to_owned();
        let flags = given_flags(given, |flag| !flag.works_with_config_file());
        if !lenience.is_strict() {
            notices.push(ConfigNotice::Lenient {
                file: file(),
                lenience,
            });
        }
        if !flags.is_empty() {
            notices.push(ConfigNotice::Overridden {
                file: file(),
                flags,
            });
        }
        without_effect = fields_without_effect(written, config.mode);
    }
    let has_content_type = AcceptedTypes::of(&config.written.client_connection).is_some();
    without_effect.extend(given_flags(given, |flag| {
        let has_no_effect = match flag.support {
            Support::Honoured | Support::InSectionOfMode => false,
            Support::NoEffect => true,
            Support::IfContentType => !has_content_type,
        };
        has_no_effect && (!is_file || flag.works_with_config_file())
    }));
    match config.mode {
        Mode::Nftables => {}
        // Without a file, nobody has chosen a mode.
        Mode::Unset if !is_file => {}
        mode @ (Mode::Unset | Mode::Iptables | Mode::Ipvs) => {
            notices.push(ConfigNotice::OtherMode(mode));
        }
    }
    if !without_effect.is_empty() {
        notices.push(ConfigNotice::NoEffect(without_effect));
    }
    notices
}

/// Returns the given flags that match, with dashes.
fn given_flags(given: &[String], is_match: impl Fn(&Setting) -> bool) -> Vec<String> {
    given
        .iter()
        .filter(|flag| Setting::of_flag(flag).is_some_and(&is_match))
        .map(|flag| format!("--{flag}"))
        .collect()
}

/// Returns the fields that differ from their default and have no effect.
fn fields_without_effect(written: &KubeProxyConfiguration, mode: Mode) -> Vec<String> {
    let has_content_type = AcceptedTypes::of(&written.client_connection).is_some();
    let defaults = default_fields();
    let written = to_json(written);
    let in_section = |field: &str| match mode {
        Mode::Nftables => field.starts_with("nftables."),
        // kube-proxy's mode ipvs uses masqueradeAll of the section iptables.
        Mode::Ipvs => field.starts_with("ipvs.") || field == "iptables.masqueradeAll",
        Mode::Iptables | Mode::Unset => field.starts_with("iptables."),
    };
    let has_no_effect = |setting: &&Setting| match setting.support {
        Support::Honoured => false,
        Support::NoEffect => true,
        Support::IfContentType => !has_content_type,
        Support::InSectionOfMode => !in_section(setting.field),
    };
    let differs = |setting: &&Setting| {
        let at = |value: &Value| value.pointer(&pointer(setting.field)).cloned();
        at(&written) != at(&defaults)
    };
    SETTINGS
        .iter()
        .filter(|setting| !setting.field.is_empty())
        .filter(has_no_effect)
        .filter(differs)
        .map(|setting| setting.field.to_owned())
        .collect()
}

/// Converts the path of a field to a JSON pointer (RFC 6901).
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

impl fmt::Display for ConfigNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lenient { file, lenience } => {
                let LenientFields { unknown, duplicate } = lenience;
                write!(f, "{}: ", file.display())?;
                let kinds = [
                    ("unknown fields have no effect", unknown),
                    ("of duplicate fields the last takes effect", duplicate),
                ];
                let kinds = kinds.iter().filter(|(_, fields)| !fields.is_empty());
                let texts: Vec<_> = kinds
                    .map(|(effect, fields)| format!("{effect}: {}", fields.join(", ")))
                    .collect();
                f.write_str(&texts.join("; "))
            }
            Self::Overridden { file, flags } => write!(
                f,
                "{} takes precedence: {} has no effect",
                file.display(),
                flags.join(", ")
            ),
            Self::OtherMode(mode) => write!(
                f,
                "mode {mode}: kube-dnat uses nftables in every mode, and serves node ports on the node's \
                 primary addresses unless nodePortAddresses is set"
            ),
            Self::NoEffect(settings) => write!(f, "no effect: {}", settings.join(", ")),
        }
    }
}

impl ConfigNotice {
    /// Whether the notice is about a possible mistake.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Lenient { .. } | Self::Overridden { .. } => true,
            Self::OtherMode(_) | Self::NoEffect(_) => false,
        }
    }

    /// Logs the notice.
    pub fn log(&self) {
        match self {
            Self::Lenient { file, lenience } => {
                let LenientFields { unknown, duplicate } = lenience;
                warn!(
                    event = %LogEvent::ConfigFieldsIgnored,
                    file = %file.display(),
                    unknown = unknown.join(", "),
                    duplicate = duplicate.join(", "),
                    "the configuration has unknown fields, which are ignored, or duplicate fields, of \
                     which the last takes effect"
                );
            }
            Self::Overridden { file, flags } => warn!(
                event = %LogEvent::ConfigFlagsIgnored,
                file = %file.display(),
                flags = flags.join(", "),
                "flags have no effect because the configuration file takes precedence"
            ),
            Self::OtherMode(mode) => info!(
                event = %LogEvent::ProxyModeIgnored,
                %mode,
                "kube-dnat uses nftables in every mode: node ports are served on the node's primary \
                 addresses unless nodePortAddresses is set"
            ),
            Self::NoEffect(settings) => info!(
                event = %LogEvent::SettingsWithoutEffect,
                settings = settings.join(", "),
                "settings are accepted for compatibility and have no effect"
            ),
        }
    }
}
