package crm

import (
	"slices"
	"time"
)

// Channel says how a follow-up was made.
type Channel string

// The channels of a follow-up.
const (
	ChannelCall   Channel = "call"
	ChannelVisit  Channel = "visit"
	ChannelWeChat Channel = "wechat"
	ChannelEmail  Channel = "email"
	ChannelOther  Channel = "other"
)

// FollowUp is one note about one contact with a customer or lead. Its person is the customer's. What was noted stays as it was: another
// follow-up corrects it.
type FollowUp struct {
	Meta[FollowUp]
	SubjectType string       `protect:"internal,indexed" json:"subject_type"` // one of the Type constants
	Subject     UUID         `protect:"internal,indexed" json:"subject"`      // the record it is about
	Customer    ID[Customer] `protect:"internal,indexed" json:"customer"`     // none while the subject is a lead
	Channel     Channel      `protect:"internal" json:"channel"`
	Text        Text         `protect:"personal" json:"text"`
	At          time.Time    `protect:"internal,indexed" json:"at"`
	Attachments []UUID       `protect:"internal" json:"attachments"`     // of an attachment store
	NextAt      time.Time    `protect:"internal,indexed" json:"next_at"` // when to come back; zero: not planned
	DoneAt      time.Time    `protect:"internal,indexed" json:"done_at"` // when that was done; zero: not yet
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (f *FollowUp) Validate() error {
	v := Checks{Type: TypeFollowUp}
	v.Team(f.Team)
	oneOf(&v, "subject_type", f.SubjectType,
		TypeCustomer, TypeContact, TypeLead, TypeQuote, TypeContract, TypeTicket, TypeOpportunity, TypeProject)
	v.Required("subject", f.Subject.IsZero())
	switch f.SubjectType {
	case TypeLead:
	case TypeCustomer:
		if f.Customer.UUID() != f.Subject {
			v.Add("customer", "mismatch")
		}
	default:
		v.Required("customer", f.Customer.IsZero())
	}
	oneOf(&v, "channel", f.Channel, ChannelCall, ChannelVisit, ChannelWeChat, ChannelEmail, ChannelOther)
	v.Text("text", f.Text, true, MaxText)
	v.Required("at", f.At.IsZero())
	v.Time("at", f.At)
	v.Time("next_at", f.NextAt)
	v.Order("next_at", f.At, f.NextAt)
	if len(f.Attachments) > 100 {
		v.Add("attachments", "too_long")
	}
	if slices.ContainsFunc(f.Attachments, UUID.IsZero) {
		v.Add("attachments", "bad_reference")
	}
	if !f.DoneAt.IsZero() && f.NextAt.IsZero() {
		v.Add("done_at", "mismatch")
	}
	v.Order("done_at", f.At, f.DoneAt)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become f: only when to come back may change, until it is done, and the customer
// of what was a lead may be filled in. All else is a *InvalidError with the rule fixed.
func (f *FollowUp) CheckUpdate(prev *FollowUp) error {
	v := Checks{Type: TypeFollowUp}
	v.Unchanged("subject", f.SubjectType == prev.SubjectType && f.Subject == prev.Subject)
	v.Unchanged("customer", f.Customer == prev.Customer || prev.Customer.IsZero())
	v.Unchanged("channel", f.Channel == prev.Channel)
	v.SameText("text", f.Text, prev.Text)
	v.SameTime("at", f.At, prev.At)
	v.Unchanged("attachments", slices.Equal(f.Attachments, prev.Attachments))
	if !prev.DoneAt.IsZero() {
		v.SameTime("next_at", f.NextAt, prev.NextAt)
		v.SameTime("done_at", f.DoneAt, prev.DoneAt)
	}
	return v.Err()
}

// Due tells whether the owner is to come back at a time or before and has not.
func (f *FollowUp) Due(at time.Time) bool {
	return !f.Deleted && !f.NextAt.IsZero() && f.DoneAt.IsZero() && !at.Before(f.NextAt)
}

// Done notes when the owner came back. A *InvalidError has the rule required when nothing was planned, fixed when it was done, and
// too_early before the follow-up itself.
func (f *FollowUp) Done(at time.Time) error {
	v := Checks{Type: TypeFollowUp}
	v.Required("next_at", f.NextAt.IsZero())
	v.Unchanged("done_at", f.DoneAt.IsZero())
	if at.Before(f.At) {
		v.Add("done_at", "too_early")
	}
	if err := v.Err(); err != nil {
		return err
	}
	f.DoneAt, f.UpdatedAt = at, at
	return nil
}

// Todo returns what somebody is to come back to until a time, the longest due first.
func Todo(list []*FollowUp, owner ID[Employee], until time.Time) []*FollowUp {
	var due []*FollowUp
	for _, f := range list {
		if f.Owner == owner && f.Due(until) {
			due = append(due, f)
		}
	}
	slices.SortStableFunc(due, func(a, b *FollowUp) int { return a.NextAt.Compare(b.NextAt) })
	return due
}
