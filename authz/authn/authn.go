package authn

import (
	"errors"
	"fmt"
)

// Method is a way of showing who one is, as sessions, policies and the log name it.
type Method string

// The methods.
const (
	Password    Method = "password"    // something known
	TOTP        Method = "totp"        // a code of an authenticator app
	Passkey     Method = "passkey"     // a WebAuthn credential that verified its user: both factors in one
	Recovery    Method = "recovery"    // a code from paper
	SMS         Method = "sms"         // a code sent to a phone: restricted, for numbers are taken over
	Email       Method = "email"       // a code sent to a mailbox: no authenticator by NIST
	OIDC        Method = "oidc"        // the word of another provider, whatever it asked for
	Certificate Method = "certificate" // a client certificate of mutual TLS
)

// factor is what a method shows; a method may show several, or none.
type factor uint8

const (
	something factor = 1 << iota // enough to act at AAL1
	known
	held
)

// shows tells what a method shows, and whether it is one.
func (m Method) shows() (f factor, ok bool) {
	switch m {
	case Password:
		return something | known, true
	case TOTP, Recovery, SMS, Certificate: // a recovery code is a look-up secret in NIST's words
		return something | held, true
	case Passkey: // what unlocks it, a PIN or a biometric, is the other factor
		return something | known | held, true
	case OIDC: // of which kind is not known here
		return something, true
	case Email:
		return 0, true
	}
	return 0, false
}

// ParseMethod returns the method of that name, or an error that does not repeat the name.
func ParseMethod(name string) (Method, error) {
	if m := Method(name); m.Valid() {
		return m, nil
	}
	return "", errors.New("authn: no such method")
}

// Valid tells whether m is one of the methods of this package.
func (m Method) Valid() bool {
	_, ok := m.shows()
	return ok
}

// Weak tells whether m is taken over more easily than its kind should be: codes that are sent. A composition offers it
// only where nothing stronger is enrolled, tells the person so, and never for a step up.
func (m Method) Weak() bool { return m == SMS || m == Email }

// Level is an authenticator assurance level of NIST SP 800-63B-4. Levels are ordered.
type Level uint8

// The levels. AAL3 asks for hardware whose keys cannot be exported, which no method here can vouch for by itself.
const (
	NoLevel Level = iota
	AAL1          // one factor
	AAL2          // two different factors
)

// String returns "none", "AAL1" or "AAL2".
func (l Level) String() string {
	switch l {
	case NoLevel:
		return "none"
	case AAL1, AAL2:
		return fmt.Sprintf("AAL%d", uint8(l))
	}
	return "invalid"
}

// LevelOf returns the level that the methods reach together. A passkey reaches AAL2 alone. A password reaches it with
// something held: an app, a certificate, a recovery code (a look-up secret) or a code by SMS (which NIST restricts: see
// [Method.Weak]). Two things held do not, nor does the word of a provider: package oidc names the methods that a
// provider is trusted to vouch for. E-mail adds nothing, and unknown methods add nothing.
func LevelOf(methods ...Method) Level {
	var shown factor
	for _, m := range methods {
		f, _ := m.shows()
		shown |= f
	}
	switch {
	case shown&known != 0 && shown&held != 0:
		return AAL2
	case shown&something != 0:
		return AAL1
	}
	return NoLevel
}

// ErrRefused is the one public answer to whoever could not be signed in.
var ErrRefused = errors.New("authn: refused")

// refusal is ErrRefused with a reason inside. It has no Unwrap: a page that asks errors.Is of what failed would tell
// one failure from another.
type refusal struct{ reason error }

func (*refusal) Error() string        { return ErrRefused.Error() }
func (*refusal) GoString() string     { return ErrRefused.Error() }
func (*refusal) Is(target error) bool { return target == ErrRefused }

// Refuse returns an error that reads as [ErrRefused], and is it by errors.Is, and carries the reason for the log.
// Reasons hold no passwords, codes and tokens. A nil reason is a refusal too. What is a refusal already stays as it is.
func Refuse(reason error) error {
	if r := (*refusal)(nil); errors.As(reason, &r) {
		return r
	}
	return &refusal{reason}
}

// Reason returns why err refuses, for the log and never for the answer: the reason given to [Refuse], or err itself
// when it carries none.
func Reason(err error) error {
	if r := (*refusal)(nil); errors.As(err, &r) && r.reason != nil {
		return r.reason
	}
	return err
}
