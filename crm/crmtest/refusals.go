package crmtest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// Secret is what tests put where no error may repeat it.
const Secret = "SECRET"

// Broken fails unless err is a *crm.InvalidError with exactly these fields and rules, each as "field rule"; with none, unless err
// is nil. An error that repeats Secret fails too.
func Broken(t testing.TB, what string, err error, want ...string) {
	t.Helper()
	var got []string
	var invalid *crm.InvalidError
	switch {
	case err == nil:
	case !errors.As(err, &invalid):
		t.Errorf("%s: got %v, want an InvalidError", what, err)
		return
	default:
		for _, f := range invalid.Fields {
			got = append(got, f.Field+" "+f.Rule)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
	if err != nil && strings.Contains(err.Error(), Secret) {
		t.Errorf("%s: the error repeats a value: %v", what, err)
	}
}

// Stays fails unless err is a *crm.TransitionError between the two states.
func Stays(t testing.TB, what string, err error, from, to string) {
	t.Helper()
	var wrong *crm.TransitionError
	if !errors.As(err, &wrong) || wrong.From != from || wrong.To != to {
		t.Errorf("%s: got %v, want no step from %s to %s", what, err, from, to)
	}
}

// Edit is one change of a record and the rules that it breaks.
type Edit[T any] struct {
	edit func(*T)
	want []string
}

// Breaks says which rules an edit breaks, each as "field rule"; none for an edit that is allowed.
func Breaks[T any](edit func(*T), want ...string) Edit[T] { return Edit[T]{edit, want} }

// Edits makes each edit on a fresh record and checks what validate says of it.
func Edits[T any](t testing.TB, fixture func() *T, validate func(*T) error, edits ...Edit[T]) {
	t.Helper()
	for _, e := range edits {
		r := fixture()
		e.edit(r)
		Broken(t, strings.Join(e.want, ", "), validate(r), e.want...)
	}
}

// Fixed makes each edit on a copy of a record and checks that the copy may not follow on the record, each by exactly the
// rule that it is listed under.
func Fixed[T any](t testing.TB, record *T, check func(*T, *T) error, cases map[string]func(*T)) {
	t.Helper()
	for want, edit := range cases {
		r := *record
		edit(&r)
		Broken(t, want, check(&r, record), want)
	}
}
