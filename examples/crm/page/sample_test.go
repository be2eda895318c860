package page_test

import (
	"time"

	"github.com/crmguard/crmguard/examples/crm/page"
)

// now is the clock of the samples: a Saturday.
func now() time.Time { return time.Date(2026, 11, 21, 16, 40, 0, 0, time.UTC) }

func ago(d time.Duration) time.Time { return now().Add(-d) }

const day = 24 * time.Hour

func frame(lang, title, path string) page.Frame {
	item := func(key, href string, note page.Text) page.NavItem {
		return page.NavItem{Label: page.T("nav." + key), Href: href, Note: note, Active: href == path}
	}
	return page.Frame{
		Lang: lang, Title: page.T(title), Path: path,
		User: &page.User{Name: "Lin Mei", Roles: []page.Text{page.T("role.sales"), page.T("role.manager")}, Href: "/me"},
		Nav: []page.NavGroup{
			{Label: page.T("nav.work"), Items: []page.NavItem{
				item("home", "/", page.Text{}), item("customers", "/customers", page.Text{}), item("contacts", "/contacts", page.Text{}),
				item("leads", "/leads", page.Plain("42")), item("follow_ups", "/follow-ups", page.Plain("7")),
			}},
			{Label: page.T("nav.deals"), Items: []page.NavItem{item("quotes", "/quotes", page.Text{}), item("contracts", "/contracts", page.T("nav.due", 3))}},
			{Label: page.T("nav.service"), Items: []page.NavItem{item("tickets", "/tickets", page.Plain("5"))}},
			{Label: page.T("nav.data"), Items: []page.NavItem{item("imports", "/imports", page.Text{}), item("recycle_bin", "/bin", page.Text{})}},
			{Label: page.T("nav.trust"), Items: []page.NavItem{item("log", "/log", page.Text{}), item("backups", "/backups", page.Text{}), item("employees", "/employees", page.Text{})}},
		},
		Verdict: &page.Verdict{State: "anchored", OK: true, Events: 12408, At: ago(2 * time.Minute), Href: "/log"},
	}
}

func stage(state string, tone page.Tone) page.Cell {
	return page.Cell{Kind: page.KindBadge, Key: "state.customer." + state, Tone: tone}
}

func masked(s, url string) page.Cell {
	return page.Cell{Text: s, State: page.Masked, RevealURL: url}
}

func customers(name string) *page.List {
	row := func(company, contact, phone string, st page.Cell, value int64, t time.Time) page.Row {
		return page.Row{Href: "/customers/1", Cells: []page.Cell{
			{Text: company}, masked(contact, ""), masked(phone, "/customers/1/reveal/phone"), st,
			{Kind: page.KindMoney, Amount: value, Currency: "CNY"}, {Kind: page.KindTime, Time: t},
		}}
	}
	return &page.List{
		Title: page.T("type.customer.many"), Count: 1284,
		Primary:   &page.Action{Label: page.T("act.new.customer"), Href: "/customers/new"},
		Secondary: []page.Action{{Label: page.T("act.import"), Href: "/imports"}},
		Chips: []page.Chip{
			{Label: page.T("list.mine"), Href: "/customers?mine=1", Active: true}, {Label: page.T("list.team"), Href: "/customers?team=1"},
			{Label: page.T("list.overdue"), Href: "/customers?overdue=1"}, {Label: page.T("list.all"), Href: "/customers"},
		},
		Columns: []page.Column{
			{Label: page.T("field.company")}, {Label: page.T("field.contact")}, {Label: page.T("field.phone")},
			{Label: page.T("field.stage"), Kind: page.KindBadge}, {Label: page.T("field.open_value"), Kind: page.KindMoney},
			{Label: page.T("field.last_follow_up"), Kind: page.KindTime},
		},
		Rows: []page.Row{
			row(name, "张*", "138****5678", stage("contracting", page.Accent), 48600000, ago(2*time.Hour)),
			row("Mosley-David", "H*** Callahan", "043****5229", stage("negotiation", page.Neutral), 9230000, ago(8*time.Hour)),
			row("Horn, Shepard and Watson", "K*** Ferrell", "932****1802", stage("at_risk", page.Warning), 1875000, ago(3*day)),
			row("曾氏物流集团", "曾*", "139****0417", stage("contracting", page.Accent), 120400000, ago(day)),
			row("Isdom", "D*** Schlecht", "415****2291", stage("new", page.Neutral), 0, ago(day)),
			row("Cancity", "M*** Frase", "212****7740", stage("payment_overdue", page.Danger), 6412000, ago(5*day)),
			row("仇记餐饮", "仇*", "186****9920", stage("new", page.Neutral), 0, ago(6*day)),
			row("Betasoloin", "A*** Snelling", "650****1180", stage("negotiation", page.Neutral), 3790050, ago(8*day)),
			row("Plussunin", "K*** Petersen", "617****3365", stage("contracting", page.Accent), 25540000, ago(9*day)),
			row("Zumgoity", "C*** Crowley", "503****8121", stage("dormant", page.Warning), 960000, ago(16*day)),
		},
		First: 1, NextHref: "/customers?after=x",
		Policy: []page.Text{page.T("policy.masked", page.T("field.phone"), "field.phone")},
		Empty:  page.Empty{Text: page.T("empty.customer"), Action: &page.Action{Label: page.T("act.new.customer"), Href: "/customers/new"}},
	}
}

func customer(name string) *page.Detail {
	return &page.Detail{
		Title: page.Cell{Text: name}, Badge: &page.Cell{Kind: page.KindBadge, Key: "state.customer.contracting", Tone: page.Accent},
		Subtitle:  []page.Text{page.T("detail.owner", "Lin Mei"), page.T("detail.team", "East")},
		Edit:      "/customers/1/edit",
		Primary:   &page.Action{Label: page.T("act.new.quote"), Href: "/quotes/new?customer=1"},
		Secondary: []page.Action{{Label: page.T("act.follow_up"), Href: "/follow-ups/new?customer=1"}},
		Tabs: []page.Tab{
			{Label: page.T("detail.tab.overview"), Href: "/customer", Active: true}, {Label: page.T("detail.tab.quotes"), Count: 3, Href: "/q"},
			{Label: page.T("detail.tab.contracts"), Count: 1, Href: "/c"}, {Label: page.T("detail.tab.tickets"), Count: 2, Href: "/t"},
			{Label: page.T("detail.tab.audit"), Href: "/a"},
		},
		Sections: []page.Section{{Title: page.T("detail.details"), Note: page.T("detail.edited", ago(2*time.Hour)), Rows: []page.Fact{
			{Label: page.T("field.contact"), Cell: masked("张*", "")},
			{Label: page.T("field.phone"), Cell: masked("138****5678", "/customers/1/reveal/phone")},
			{Label: page.T("field.email"), Cell: masked("z***@hdjm.example", "")},
			{Label: page.T("field.id_number"), Cell: page.Cell{State: page.Hidden, Role: page.T("role.finance")}},
			{Label: page.T("field.phone2"), Cell: page.Cell{State: page.Erased}},
			{Label: page.T("field.website"), Cell: page.Cell{State: page.Sealed}},
			{Label: page.T("field.credit_limit"), Cell: page.Cell{Kind: page.KindMoney, Amount: 50000000, Currency: "CNY"}},
			{Label: page.T("field.address"), Cell: page.Cell{Text: "上海市浦东新区 ···"}},
			{Label: page.T("field.source"), Cell: page.Cell{}},
			{Label: page.T("field.roles"), Cell: page.Cell{Kind: page.KindList, Items: []page.Text{page.T("role.sales"), page.T("role.finance")}}},
			{Label: page.T("field.note"), Cell: page.Cell{Kind: page.KindLong, Text: "Delivery in two lots.\nCall before noon."}},
		}}},
		Lists: []page.List{{ID: "quotes", Title: page.T("type.quote.many"), Count: 1,
			Columns: []page.Column{{Label: page.T("field.number")}, {Label: page.T("field.state"), Kind: page.KindBadge}, {Label: page.T("field.total"), Kind: page.KindMoney}},
			Rows: []page.Row{{Href: "/quotes/1", Cells: []page.Cell{{Text: "Q-2026-0418"}, {Kind: page.KindBadge, Key: "state.quote.accepted", Tone: page.Accent},
				{Kind: page.KindMoney, Amount: 48600000, Currency: "CNY"}}}}}},
		Timeline: []page.Entry{
			{Time: ago(7 * time.Hour), Title: page.T("timeline.follow_up", page.T("type.quote"), "Q-2026-0418"), Detail: []page.Text{page.Plain("Lin Mei")}, Tone: page.Accent, Href: "/quotes/1"},
			{Time: ago(day), Title: page.T("timeline.follow_up", page.T("channel.call"), "delivery split into two lots"), Detail: []page.Text{page.Plain("Lin Mei")}},
			{Time: ago(day + time.Hour), Title: page.T("reveal.timeline", page.T("field.phone"), "confirm delivery contact"), Detail: []page.Text{page.Plain("Lin Mei"), page.T("timeline.event", 12377)}, Tone: page.Warning},
			{Time: ago(18 * day), Title: page.T("timeline.created"), Detail: []page.Text{page.Plain("Wang Fang")}},
		},
		Why: []page.Reason{
			{Text: page.T("why.rbac.own", page.T("type.customer")), Control: "rbac.own", Tone: page.Accent},
			{Text: page.T("why.masked", []page.Text{page.T("field.phone"), page.T("field.email")}), Control: "field.contact"},
			{Text: page.T("why.hidden", page.T("field.id_number")), Control: "field.identity"},
		},
		Access: []page.Fact{{Label: page.T("detail.access"), Cell: page.Cell{Kind: page.KindNumber, Amount: 7, Strong: true}}},
		Protection: []page.Fact{
			{Label: page.T("protection.key"), Cell: page.Cell{Text: "epoch 11"}},
			{Label: page.T("protection.backup"), Cell: page.Cell{Kind: page.KindTime, Time: ago(41 * time.Minute)}},
			{Label: page.T("protection.consent"), Cell: page.Cell{Key: "role.sales"}},
			{Label: page.T("protection.retention"), Cell: page.Cell{Key: "retention.contract"}},
		},
		Moves: []page.Action{
			{Label: page.T("move.won"), Href: "/customers/1/move", Post: true, Inputs: []page.Input{{Name: "to", Value: "won"}}},
			{Label: page.T("move.at_risk"), Href: "/customers/1/move", Post: true, Inputs: []page.Input{{Name: "to", Value: "at_risk"}}},
			{Label: page.T("act.delete"), Href: "/customers/1/delete", Post: true, Tone: page.Danger},
		},
		Version: 4,
	}
}

// pool is a page whose rows have buttons, beside a panel with a small form.
func pool(name string) *page.Detail {
	claim := func(i string) page.Cell {
		return page.Cell{Kind: page.KindActions, Actions: []page.Action{{Label: page.T("act.claim"), Href: "/pools/1/claim", Post: true, Inputs: []page.Input{{Name: "record", Value: i}}}}}
	}
	return &page.Detail{
		Title: page.Cell{Text: name, Strong: true}, Badge: &page.Cell{Kind: page.KindBadge, Key: "type.customer.many"}, Edit: "/pools/1/edit", Version: 1,
		Subtitle: []page.Text{page.T("pool.mode.claim"), page.T("pool.you.member")},
		Lists: []page.List{{
			ID: "free", Title: page.T("pool.free"), Count: 12, NextHref: "/pool?after=x", Policy: []page.Text{page.T("policy.masked", page.T("field.phone"), "field.personal")},
			Chips:   []page.Chip{{Label: page.T("pool.sort.returned_at"), Href: "/pool?sort=returned_at", Active: true}, {Label: page.T("pool.sort.created_at"), Href: "/pool?sort=created_at"}},
			Columns: []page.Column{{Label: page.T("field.customer.name")}, {Label: page.T("field.phone")}, {Label: page.T("field.returned_at"), Kind: page.KindTime}, {Label: page.T("list.action"), Kind: page.KindActions}},
			Rows: []page.Row{
				{Cells: []page.Cell{{Text: "华*", State: page.Masked, Strong: true}, {Text: "138****5678", State: page.Masked}, {Kind: page.KindTime, Time: ago(day)}, claim("1")}},
				{Cells: []page.Cell{{Text: "H*** Callahan", State: page.Masked, Strong: true}, {State: page.Hidden}, {Kind: page.KindTime, Time: ago(9 * day)}, claim("2")}},
			},
		}},
		Panels: []page.Panel{{
			Title: page.T("hand.title"), Note: page.T("pool.counts.note"),
			Facts: []page.Fact{{Label: page.T("field.owner"), Cell: page.Cell{Text: name}}, {Label: page.T("pool.people"), Cell: page.Cell{Kind: page.KindList, Items: []page.Text{page.Plain(name), page.Plain("Lin Mei")}}}},
			Actions: []page.Action{
				{Label: page.T("act.release"), Href: "/customers/1/release", Post: true},
				{Label: page.T("act.transfer"), Href: "/customers/1/transfer", Post: true, Fields: []page.Field{
					{Name: "to", ID: "f-transfer", Kind: page.FieldSelect, Label: page.T("hand.to"), Required: true, Options: []page.Option{{Value: "e1", Label: page.Plain(name)}}},
				}},
				{Label: page.T("act.assign"), Href: "/customers/1/assign", Post: true, Fields: []page.Field{
					{Name: "to", ID: "f-assign", Kind: page.FieldSelect, Label: page.T("hand.to"), Required: true, Options: []page.Option{{Value: "e1", Label: page.Plain(name)}}},
				}},
			},
		}},
	}
}

// numbers is a page of counts and sums.
func numbers(name string) *page.Numbers {
	l := page.List{
		ID: "by-source", Title: page.T("numbers.by.source"), Count: -1, Policy: []page.Text{page.T("numbers.hidden", 2)},
		Columns: []page.Column{{Label: page.T("field.source")}, {Label: page.T("numbers.count"), Kind: page.KindNumber}, {Label: page.T("field.open_value"), Kind: page.KindMoney}},
		Rows:    []page.Row{{Cells: []page.Cell{{Text: name}, {Kind: page.KindNumber, Amount: 1284}, {Kind: page.KindMoney, Amount: 48600000, Currency: "CNY"}}}},
	}
	none := page.List{ID: "by-owner", Title: page.T("numbers.by.owner"), Count: -1, Empty: page.Empty{Text: page.T("numbers.hidden", 1)}}
	return &page.Numbers{
		Title: page.T("nav.numbers"), Note: page.T("numbers.note"), Lists: []page.List{l, none},
		Chips: []page.Chip{{Label: page.T("type.customer.many"), Href: "/numbers?of=customer", Active: true}, {Label: page.T("type.lead.many"), Href: "/numbers?of=lead"}},
	}
}

func form(name string) *page.Form {
	return &page.Form{
		Title: page.T("form.edit.customer"), Action: "/customers/1/edit", Version: 4, Cancel: "/customers/1",
		Errors: []page.Text{page.T("form.invalid")}, Note: page.T("form.masked.note"),
		Sections: []page.FormSection{
			{Title: page.T("section.main"), Fields: []page.Field{
				{Name: "name", Label: page.T("field.customer.name"), Value: name, Required: true},
				{Name: "kind", Kind: page.FieldSelect, Label: page.T("field.kind"), Value: "company", Options: []page.Option{
					{Value: "person", Label: page.T("kind.person")}, {Value: "company", Label: page.T("kind.company")},
				}},
				{Name: "phone", Kind: page.FieldTel, Label: page.T("field.phone"), Mask: "138****5678"},
				{Name: "email", Kind: page.FieldEmail, Label: page.T("field.email"), Value: "not an address", Errors: []page.Text{page.T("rule.not_an_email")}},
				{Name: "id_number", Label: page.T("field.id_number"), Locked: true, Role: page.T("role.finance")},
				{Name: "number", Label: page.T("field.number"), Value: "C-1", Fixed: true},
				{Name: "credit_limit", Kind: page.FieldMoney, Label: page.T("field.credit_limit"), Value: "500000.00", Currency: "CNY", Help: page.T("form.money.help")},
				{Name: "reopened", Kind: page.FieldNumber, Label: page.T("field.reopened"), Value: "2"},
				{Name: "starts", Kind: page.FieldDate, Label: page.T("field.starts"), Value: "2026-11-21"},
				{Name: "at", Kind: page.FieldTime, Label: page.T("field.at"), Value: "2026-11-21T16:40"},
				{Name: "website", Kind: page.FieldURL, Label: page.T("field.website")},
				{Name: "primary", Kind: page.FieldCheckbox, Label: page.T("field.primary"), Value: "on"},
				{Name: "roles", Kind: page.FieldChecks, Label: page.T("field.roles"), Values: []string{"sales"}, Wide: true, Options: []page.Option{
					{Value: "sales", Label: page.T("role.sales")}, {Value: "finance", Label: page.T("role.finance")},
				}},
				{Name: "note", Kind: page.FieldTextarea, Label: page.T("field.note"), Value: "Delivery in two lots."},
				{Name: "owner", Kind: page.FieldHidden, Value: "e1"},
			}},
		},
		Lines: &page.Lines{Currency: "CNY", Errors: []page.Text{page.T("rule.out_of_range")}, Rows: []page.LineRow{
			{Product: "Gauge", Quantity: "2", UnitPrice: "120.50", Discount: "5", Tax: "13"},
			{Product: name, Quantity: "-1", UnitPrice: "1", Errors: []page.Text{page.T("rule.negative")}},
		}},
	}
}

func event(i uint64, name string) page.Event {
	outcome := []string{"allowed", "denied", "intended", "failed", "aborted"}[i%5]
	return page.Event{
		Index: i, Time: ago(time.Duration(12408-i) * time.Minute), Actor: "Lin Mei",
		Action: []string{"customer.read", "customer.reveal", "quote.update", "backup.run", "session.sign_in"}[i%5], Outcome: outcome,
		Target: page.Plain(name), TargetHref: "/customers/1", Fields: []page.Text{page.T("field.phone"), page.T("field.email")},
		Controls: []string{"rbac.own", "field.contact"}, Href: "/event",
	}
}

func logPage(name string) *page.Log {
	l := &page.Log{
		Verdict: page.Verdict{State: "unanchored", OK: true, Events: 12408, At: ago(2 * time.Minute)},
		Origin:  "crm.example/log", Checkpoint: "v2SqZsJ7mJxvYpF2m4oV9s8l0lQj3nq0oJm8iC7nD3k=",
		Facts: []page.Fact{
			{Label: page.T("log.opened"), Cell: page.Cell{Kind: page.KindNumber, Amount: 311}},
			{Label: page.T("log.unchecked"), Cell: page.Cell{Kind: page.KindNumber, Amount: 0}},
		},
		Command: "go run ./examples/crm verify --data ./crm-data",
		Filter:  page.LogFilter{Actor: "e1", From: "2026-11-01"},
		Actors:  []page.Option{{Value: "e1", Label: page.Plain("Lin Mei")}},
		Actions: []page.Option{{Value: "customer.read", Label: page.T("action.customer.read")}},
	}
	for i := uint64(12407); i > 12395; i-- {
		l.Events = append(l.Events, event(i, name))
	}
	l.NextHref, l.PrevHref = "/log?before=12395", "/log"
	return l
}

// sample is one page of the demonstration.
type sample struct {
	path    string
	title   string
	content any
	out     bool // signed out
}

// samples returns every kind of page; name is what the customer is called.
// exists is a form of what exists already.
func exists(name string) *page.Form {
	f := form(name)
	f.Errors, f.Version, f.Lines = nil, 0, nil
	f.Warnings, f.Anyway = []page.Text{page.T("dup.warn"), page.T("dup.warn.do")}, page.T("dup.anyway")
	f.Found = &page.List{ID: "duplicates", Title: page.T("dup.found"), Count: -1, Columns: []page.Column{{Label: page.T("type.customer")}, {Label: page.T("dup.band")}, {Label: page.T("dup.agree")}, {Label: page.T("dup.ask")}}, Rows: []page.Row{
		{Href: "/customer", Cells: []page.Cell{{Text: name, Strong: true}, {Kind: page.KindBadge, Key: "dup.band.certain", Tone: page.Danger}, {Kind: page.KindList, Items: []page.Text{page.T("dup.why", page.T("field.phone"), page.T("dup.by.normalised"))}}, {}}},
		{Cells: []page.Cell{{Key: "dup.exists"}, {Kind: page.KindBadge, Key: "dup.band.likely", Tone: page.Warning}, {}, {Text: name}}},
	}}
	return f
}

// pair is two records side by side.
func pair(name string) *page.Pair {
	return &page.Pair{
		Title: page.T("dup.pair"), Note: page.T("dup.pair.note"), Action: "/customers/merge", Submit: page.T("dup.merge"), Cancel: "/customer", Swap: "/pair",
		Hidden: []page.Input{{Name: "keep", Value: "1"}, {Name: "drop", Value: "2"}},
		Keep:   page.PairSide{Label: page.T("dup.stays"), Title: page.Cell{Text: name, Strong: true, Href: "/customer"}, Note: page.T("detail.edited", ago(day))},
		Drop:   page.PairSide{Label: page.T("dup.goes"), Title: page.Cell{Text: "Hua Dong", Strong: true, Href: "/customer"}, Note: page.T("detail.edited", ago(time.Hour))},
		Rows: []page.PairRow{
			{Name: "name", Label: page.T("field.customer.name"), Keep: page.Cell{Text: name}, Drop: page.Cell{Text: "Hua Dong"}, Choice: true},
			{Name: "phone", Label: page.T("field.phone"), Keep: page.Cell{Text: "138****5678", State: page.Masked}, Drop: page.Cell{Text: "139****1111", State: page.Masked}, Choice: true, FromDrop: true},
			{Name: "credit_limit", Label: page.T("field.credit_limit"), Keep: page.Cell{State: page.Hidden, Role: page.T("role.finance")}, Drop: page.Cell{State: page.Hidden, Role: page.T("role.finance")}},
			{Name: "city", Label: page.T("field.city"), Keep: page.Cell{Text: "Ulm"}, Drop: page.Cell{Text: "Ulm"}},
		},
	}
}

func samples(name string) []sample {
	long := event(12377, name)
	long.Facts = []page.Fact{{Label: page.T("log.session"), Cell: page.Cell{Kind: page.KindMono, Text: "s-71c2"}}}
	long.Hashes = []page.Fact{{Label: page.T("log.hash.leaf"), Cell: page.Cell{Kind: page.KindMono, Text: "v2SqZsJ7mJxvYpF2m4oV9s8l0lQj3nq0oJm8iC7nD3k="}}}
	long.Targets = []page.Fact{{Label: page.T("type.customer"), Cell: page.Cell{Kind: page.KindMono, Text: "0199f0d4-1111-7aaa-8bbb-000000000001"}}}
	long.Details = []page.Commitment{
		{Name: "reason", Hash: "p0Jm8iC7nD3k", Value: name}, {Name: "address", Hash: "qz8kfE", State: page.Erased}, {Name: "device", Hash: "x", State: page.Hidden},
		{Name: "term", Hash: "y", State: page.Sealed},
	}
	long.PrevHref, long.NextHref = "/event", "/event"
	empty := &page.List{Title: page.T("type.ticket.many"), Count: 0, Empty: page.Empty{Text: page.T("empty.ticket"), Action: &page.Action{Label: page.T("act.new.ticket"), Href: "/tickets/new"}}}
	recent := *customers(name)
	recent.ID, recent.Title, recent.Chips, recent.Primary, recent.Secondary, recent.NextHref = "recent", page.T("home.recent"), nil, nil, nil, ""
	recent.Rows, recent.Count, recent.First, recent.Policy = recent.Rows[:4], 4, 0, nil
	overdue := page.List{ID: "overdue", Title: page.T("home.overdue"), Empty: page.Empty{Text: page.T("empty.overdue")}}
	gone := customer(name)
	gone.Notice = page.T("detail.deleted")
	return []sample{
		{"/sign-in/provider", "signin.leaving.note", &page.Leave{To: "https://id.example.com/authorize?client_id=crm&state=x", Name: "Example ID"}, true},
		{"/sign-in/elsewhere", "signin.title", &page.SignIn{Back: "/", Provider: &page.Button{Action: "/sign-in/provider", Back: "/", Label: page.T("signin.provider", "Example ID")}}, true},
		{"/sign-in", "signin.title", &page.SignIn{Email: "lin.mei@example.com", Back: "/customers", Failed: true, Notice: page.T("signin.ended")}, true},
		{"/sign-in/second", "second.title", &page.Second{Back: "/", Failed: true, With: &page.Passkey{Action: "/sign-in/passkey", Begin: "/sign-in/passkey/begin", Back: "/", Label: page.T("security.passkey.use")}}, true},
		{"/security", "security.title", &page.Security{
			Must: page.T("security.must"), Error: page.T("security.totp.wrong"), TOTP: true, Codes: 9, NewCodes: []string{"ABCD-EFGH-JKLM", "NPQR-STUV-WXYZ"},
			Passkeys: []page.EnrolledPasskey{{ID: "a", Name: name, Created: ago(40 * day), Used: ago(time.Hour), Synced: true}, {ID: "b", Name: "YubiKey", Created: ago(day), Cloned: true}},
			Enrol:    &page.Passkey{Action: "/security/passkeys", Begin: "/security/passkeys/begin", Make: true, Name: true, Label: page.T("security.passkey.enrol")},
			Scan:     &page.Scan{Key: "JBSW Y3DP EHPK 3PXP", Size: 10, Path: "M4 4h2v1h-2z"},
		}, false},
		{"/", "nav.home", &page.Home{Name: "Lin Mei", Counts: []page.Count{
			{Label: page.T("home.overdue"), Value: 7, Href: "/follow-ups", Tone: page.Warning}, {Label: page.T("type.customer.many"), Value: 1284, Href: "/customers"},
			{Label: page.T("home.open_tickets"), Value: 5, Href: "/tickets"}, {Label: page.T("type.quote.many"), Value: 12, Href: "/quotes"},
		}, Lists: []page.List{overdue, recent}}, false},
		{"/customers", "type.customer.many", customers(name), false},
		{"/tickets", "type.ticket.many", empty, false},
		{"/customer", "type.customer", customer(name), false},
		{"/deleted", "type.customer", gone, false},
		{"/pool", "type.pool", pool(name), false},
		{"/numbers", "nav.numbers", numbers(name), false},
		{"/form", "form.edit.customer", form(name), false},
		{"/exists", "act.new.customer", exists(name), false},
		{"/pair", "dup.pair", pair(name), false},
		{"/reveal", "act.reveal", &page.Reveal{Label: page.T("field.phone"), Record: name, Mask: "138****5678", Action: "/reveal", Back: "/customer", Error: page.T("reveal.reason.required")}, false},
		{"/revealed", "act.reveal", &page.Reveal{Label: page.T("field.phone"), Record: name, Mask: "138****5678", Action: "/reveal", Back: "/customer",
			Value: &page.Value{Text: "13800135678", Mask: "138****5678", Again: "/reveal", Event: 12409, LogHref: "/event"}}, false},
		{"/log", "log.title", logPage(name), false},
		{"/event", "log.title", &long, false},
		{"/backups", "backup.title", &page.Backups{
			Target: "file:///crm-data/backups", Run: &page.Action{Label: page.T("act.backup"), Href: "/backups", Post: true}, RecoveryHere: true,
			Progress: &page.Progress{Label: page.T("backup.running"), Done: 12000, Total: 20000, Rate: 31000, Left: 12 * time.Second, Cancel: &page.Action{Label: page.T("act.cancel"), Href: "/backups/cancel", Post: true}},
			Snapshots: []page.Snapshot{
				{ID: "20261121T155900Z", Time: ago(41 * time.Minute), Rows: 21400, Bytes: 6_400_000, Verified: ago(40 * time.Minute)},
				{ID: "20261120T155900Z", Time: ago(day), Rows: 21380, Bytes: 6_390_000},
				{ID: "20261110T155900Z", Time: ago(11 * day), Rows: 20111, Bytes: 912, Failed: page.T("backup.failed")},
			},
			Keys: []page.Fact{{Label: page.T("backup.keys.kek"), Cell: page.Cell{Text: "crm-data/kek.json"}}, {Label: page.T("backup.keys.recovery"), Cell: page.Cell{Kind: page.KindMono, Text: "crm-data/recovery.key"}}},
			Objectives: []page.Fact{{Label: page.T("backup.objective.rpo"), Cell: page.Cell{Kind: page.KindBadge, Key: "backup.objective.met", Tone: page.Accent}},
				{Label: page.T("backup.objective.off-site"), Cell: page.Cell{Kind: page.KindBadge, Key: "backup.objective.missed", Tone: page.Danger}}},
			Commands: []page.Command{{Label: page.T("backup.command.restore"), Line: "go run ./examples/crm restore --data ./new --backup file:///crm-data/backups"}},
		}, false},
		{"/denied", "", &page.Error{Status: 403, Controls: []string{"rbac.permit", "field.identity"}, Ref: "event 12410"}, false},
		{"/teapot", "", &page.Error{Status: 418}, false},
		{"/search", "search.title", &page.Search{Query: name, Lists: []page.List{recent}}, false},
		{"/nothing", "search.title", &page.Search{Query: name}, false},
	}
}
