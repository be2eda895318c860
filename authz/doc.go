// Package authz decides who may do what with which record, and how much of each field they see. It
// holds the words and imports the standard library only; the engine that evaluates Rego policies is
// authz/rego.
//
// # Decide
//
// An [Authorizer] answers a [Request] with a [Decision]: allowed or not, the controls that decided,
// the access to each field, and obligations that the caller must meet before it proceeds. The zero
// Decision denies, the zero [Access] hides, and the zero [Filter] admits no row, so that a value that
// was never filled in opens nothing.
//
// # Lists
//
// A list is a [Filter]: the same policy, evaluated with the record unknown. It is pushed into SQL or
// matched against one record, and both agree with Decide.
//
// # Errors
//
// An error from an Authorizer means that no decision was reached; treat it as a denial. [DeniedError]
// is what a caller returns for a denial: it names controls, never attributes of the record.
//
// # Not covered
//
// Who the subject is (authentication), and whether an obligation was truly met: the caller vouches for
// both.
package authz
