package crm

import "slices"

// Lifecycle is a transition table: which states a type has and which may follow which. It is
// read-only.
type Lifecycle[S ~string] struct {
	typ    string
	states []S // the first is where a record starts
	next   map[S][]S
}

// NewLifecycle makes the table of a type. The first of states is where a record starts; a state that next does not
// have is final.
func NewLifecycle[S ~string](typ string, states []S, next map[S][]S) Lifecycle[S] {
	l := Lifecycle[S]{typ: typ, states: slices.Clone(states), next: make(map[S][]S, len(next))}
	for from, to := range next {
		l.next[from] = slices.Clone(to)
	}
	return l
}

// Start returns the state of a new record.
func (l Lifecycle[S]) Start() S { return l.states[0] }

// States returns all states, the start first.
func (l Lifecycle[S]) States() []S { return slices.Clone(l.states) }

// Next returns the states that may follow from; none when from is final or unknown.
func (l Lifecycle[S]) Next(from S) []S { return slices.Clone(l.next[from]) }

// Has tells whether s is a state of the table.
func (l Lifecycle[S]) Has(s S) bool { return slices.Contains(l.states, s) }

// Check returns a *TransitionError unless to may follow from. Staying in a state is not a step.
func (l Lifecycle[S]) Check(from, to S) error {
	if slices.Contains(l.next[from], to) {
		return nil
	}
	return &TransitionError{Type: l.typ, From: l.name(from), To: l.name(to)}
}

// name keeps a value that is no state, and so may be anything a caller typed, out of error texts.
func (l Lifecycle[S]) name(s S) string {
	if l.Has(s) {
		return string(s)
	}
	return "unknown"
}

// CheckUpdate is Check for a record that may also stay as it is.
func (l Lifecycle[S]) CheckUpdate(from, to S) error {
	if from == to {
		return nil
	}
	return l.Check(from, to)
}
