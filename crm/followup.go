package crm

import "time"

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

// FollowUp is one note about one contact with a customer or lead. Its person is the customer's.
type FollowUp struct {
	Meta[FollowUp]
	SubjectType string       `protect:"internal,indexed" json:"subject_type"` // one of the Type constants
	Subject     UUID         `protect:"internal,indexed" json:"subject"`      // the record it is about
	Customer    ID[Customer] `protect:"internal,indexed" json:"customer"`     // none while the subject is a lead
	Channel     Channel      `protect:"internal" json:"channel"`
	Text        Text         `protect:"personal" json:"text"`
	At          time.Time    `protect:"internal,indexed" json:"at"`
	NextAt      time.Time    `protect:"internal,indexed" json:"next_at"` // when to come back; zero: not planned
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
	return v.Err()
}
