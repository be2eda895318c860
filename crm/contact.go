package crm

// Contact is one person who acts for a customer. Its person is that human.
type Contact struct {
	Meta[Contact]
	Customer ID[Customer] `protect:"internal,indexed" json:"customer"`
	Name     Text         `protect:"personal,index=exact:name,index=ngram:person,index=exact:pinyin,leaks=fragments,mask=name" json:"name"`
	Title    string       `protect:"internal" json:"title"`
	Phone    Text         `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality,mask=phone" json:"phone"`
	Email    Text         `protect:"personal,index=exact:email,leaks=equality,mask=email" json:"email"`
	Note     Text         `protect:"personal" json:"note"`
	Primary  bool         `protect:"internal" json:"primary"` // the one to ask first
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (c *Contact) Validate() error {
	v := Checks{Type: TypeContact}
	v.Team(c.Team)
	v.Required("customer", c.Customer.IsZero())
	v.Text("name", c.Name, true, MaxName)
	v.Str("title", c.Title, false, MaxName)
	v.Text("phone", c.Phone, false, MaxName)
	v.Email("email", c.Email, false)
	v.Text("note", c.Note, false, MaxText)
	return v.Err()
}
