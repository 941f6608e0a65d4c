//! A section of `pimesh.toml`: each key stands in one place, with what it means, its type and its
//! default. The example, the list of keys and what is read follow from that.

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What it means: the lines of its comment.
    pub(super) meaning: &'static [&'static str],
    /// What it may be, in the example, if it is not set by default.
    pub(super) example: &'static str,
}

/// Defines a section. After the default of a key that is not set may come what the example shows.
macro_rules! section {
    ($vis:vis struct $Section:ident {
        $($(#[doc = $meaning:literal])* $key:ident: $Type:ty = $default:expr $(, $example:literal)?;)*
    }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $vis struct $Section {
            $($(#[doc = $meaning])* $key: $Type,)*
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $Section {
            $vis const KEYS: &'static [$crate::config::section::Key] =
                &[$($crate::config::section::Key {
                    name: stringify!($key),
                    meaning: &[$($meaning),*],
                    example: concat!($($example)?),
                }),*];
        }
    };
}

pub(super) use section;
