//! The choices of a route that change what JSON is taken and what is written.

/// What an object member without a field means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownFields {
    /// Its syntax is checked and it is dropped.
    #[default]
    Ignore,
    /// It is an error that names it.
    Reject,
}

/// How JSON is read and written. A plan is compiled for one set of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent key of the configuration"
)]
pub struct JsonOptions {
    /// What an object member without a field means.
    pub unknown_fields: UnknownFields,
    /// Takes `active` for `ACTIVE`.
    pub case_insensitive_enums: bool,
    /// Drops an enum name that is not declared instead of refusing it.
    ///
    /// A mistyped value is lost silently, so only the conformance suite asks for this.
    pub drop_unknown_enum_names: bool,
    /// Writes fields without presence also when they hold their default.
    pub emit_defaults: bool,
    /// Writes `page_size` instead of `pageSize`.
    pub proto_names: bool,
    /// Writes enum values as numbers.
    pub enums_as_ints: bool,
    /// Writes 64-bit integers bare; readers that hold numbers as doubles lose digits beyond 2^53.
    pub int64_as_numbers: bool,
}
