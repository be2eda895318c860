package crm

import (
	"encoding/json"
	"strings"
	"time"
)

// MergeState says how far a merge went.
type MergeState string

// The states of a merge.
const (
	MergeJoining MergeState = "joining" // the records are one, their persons are not joined yet
	MergeDone    MergeState = "merged"
	MergeParting MergeState = "parting" // it is undone, the persons are joined still
	MergeUndone  MergeState = "undone"
)

// Merge is how two records became one, with what takes it back. Its person is that of the record that was kept. It is made by package crm/dedupe, in the
// transaction of the merge, and never by itself.
type Merge struct {
	Meta[Merge]
	RecordType    string       `protect:"internal,indexed" json:"record_type"` // customer, lead or contact
	Kept          UUID         `protect:"internal,indexed" json:"kept"`
	Dropped       UUID         `protect:"internal,indexed" json:"dropped"` // it was replaced by Kept
	DroppedPerson ID[Person]   `protect:"internal" json:"dropped_person"`
	State         MergeState   `protect:"internal,indexed" json:"state"`
	Taken         string       `protect:"internal" json:"taken"`  // names of the fields that Kept has from Dropped, with spaces between
	Before        Text         `protect:"personal" json:"before"` // what these were in Kept
	Moved         string       `protect:"internal" json:"moved"`  // what referred to Dropped, as JSON
	By            ID[Employee] `protect:"internal,indexed" json:"by"`
	At            time.Time    `protect:"internal,indexed" json:"at"`
	UndoneAt      time.Time    `protect:"internal" json:"undone_at"`
}

// mostBefore is how long Before may be: several notes.
const mostBefore = 10 * MaxText

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (m *Merge) Validate() error {
	v := Checks{Type: TypeMerge}
	v.Team(m.Team)
	v.OneOf("record_type", m.RecordType, TypeCustomer, TypeLead, TypeContact)
	v.Required("kept", m.Kept.IsZero())
	v.Required("dropped", m.Dropped.IsZero())
	if m.Kept == m.Dropped {
		v.Add("dropped", "mismatch")
	}
	v.Required("dropped_person", m.DroppedPerson.IsZero())
	oneOf(&v, "state", m.State, MergeJoining, MergeDone, MergeParting, MergeUndone)
	if len(m.Before.Expose()) > 4*mostBefore {
		v.Add("before", "too_long")
	}
	v.Required("at", m.At.IsZero())
	v.Time("at", m.At)
	v.Time("undone_at", m.UndoneAt)
	return v.Err()
}

// TakenFields are the names in Taken.
func (m *Merge) TakenFields() []string { return strings.Fields(m.Taken) }

// SharesEnded counts the shares of the dropped record that ended with the merge.
func (m *Merge) SharesEnded() int {
	var moved []struct{ Type string }
	if json.Unmarshal([]byte(m.Moved), &moved) != nil {
		return 0
	}
	n := 0
	for _, x := range moved {
		if x.Type == TypeSharing {
			n++
		}
	}
	return n
}

// MadeByActs says that it is made with the merge that it is of, and never by itself.
func (m *Merge) MadeByActs() {}

// Reserved names the fields that no update sets: all of them.
func (m *Merge) Reserved(isNew bool) []string {
	if isNew {
		return nil
	}
	return []string{"record_type", "kept", "dropped", "dropped_person", "state", "taken", "moved", "by", "at", "undone_at"}
}

// CheckUpdate tells whether the stored record prev may become m: its state goes forward, and nothing else changes but the time of its
// undoing. A *InvalidError has the rule fixed.
func (m *Merge) CheckUpdate(prev *Merge) error {
	v := Checks{Type: TypeMerge}
	next := map[MergeState]MergeState{MergeJoining: MergeDone, MergeDone: MergeParting, MergeParting: MergeUndone}
	v.Unchanged("state", m.State == prev.State || m.State == next[prev.State])
	v.Unchanged("record_type", m.RecordType == prev.RecordType)
	v.Unchanged("kept", m.Kept == prev.Kept)
	v.Unchanged("dropped", m.Dropped == prev.Dropped && m.DroppedPerson == prev.DroppedPerson)
	v.Unchanged("taken", m.Taken == prev.Taken)
	v.Unchanged("moved", m.Moved == prev.Moved)
	v.SameTime("at", m.At, prev.At)
	return v.Err()
}
