//! A YAML tree that knows where everything stands, and diagnostics that point there. Every file format Shipway reads is
//! decoded from this tree, so that terminal, page and push output explain mistakes in the same words. Pure.
//!
//! ```
//! use shipway_syntax::{MappingFields, SourceFile, parse};
//! let source = SourceFile::new("shipway.yaml", "service: shop\nbrnach: main\n");
//! let tree = parse(&source).unwrap();
//! let mut problems = Vec::new();
//! let mut fields = MappingFields::read(&tree, "shipway.yaml", &["service", "branch"], &mut problems).unwrap();
//! assert_eq!(fields.string("service", &mut problems).unwrap().value, "shop");
//! assert_eq!(problems[0].one_line(&source), "shipway.yaml:2:1: error: unknown key `brnach` in shipway.yaml; did you mean `branch`?");
//! ```

mod diagnostic;
mod fields;
mod nearest;
mod padded_text;
mod scalar;
mod source;
mod tree;

pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity, limit_diagnostics};
pub use fields::MappingFields;
pub use nearest::nearest;
pub use scalar::{parse_bytes, parse_cores, parse_duration};
pub use source::{SourceFile, Span, Spanned};
pub use tree::{TextStyle, YamlKey, YamlNode, YamlValue, parse};
