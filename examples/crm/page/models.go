package page

import "time"

// Text is something to read: an entry of the catalogues, or data shown as it is. Data is always
// escaped and isolated from the direction of the text around it. The zero Text shows nothing.
type Text struct {
	Key   string // of the catalogues; a key of three parts falls back to the first and the last: field.customer.phone, then field.phone
	Args  []any  // for {0}, {1} and so on: string, integers, time.Time, time.Duration, Money, Text; the first integer chooses the plural
	Plain string // data, shown when Key is empty
}

// T names an entry of the catalogues.
func T(key string, args ...any) Text { return Text{Key: key, Args: args} }

// Plain holds data.
func Plain(s string) Text { return Text{Plain: s} }

// IsZero tells whether there is nothing to show.
func (t Text) IsZero() bool { return t.Key == "" && t.Plain == "" }

// Money is an amount in minor units of an ISO 4217 currency.
type Money struct {
	Amount   int64
	Currency string
}

// Tone colours a badge, a message or a button.
type Tone uint8

// The tones.
const (
	Neutral Tone = iota
	Accent
	Warning
	Danger
)

// Kind says how a Cell is shown.
type Kind uint8

// The kinds of a Cell.
const (
	KindText    Kind = iota // Text or Key
	KindMoney               // Amount and Currency, to the right in lists
	KindTime                // Time, as how long ago or as date and time
	KindDate                // Time without its hour
	KindNumber              // Amount as a whole number
	KindBadge               // Text or Key in a coloured box
	KindMono                // Text in fixed width: ids, hashes, codes
	KindList                // Items, as badges
	KindLong                // Text with its line breaks
	KindActions             // Actions, as buttons
)

// State says what the reader holds of a field. The numbers are those of crm.State.
type State uint8

// The states of a Cell.
const (
	Clear  State = iota
	Masked       // Text is the mask
	Hidden       // looks the same whether or not there is a value
	Sealed       // could not be opened now
	Erased       // the person's key was destroyed
)

// Cell is one value, in a list or on a page. An empty value shows a dash.
type Cell struct {
	Kind      Kind
	Text      string // data: the value, or its mask
	Key       string // of the catalogues, shown instead of Text: T("state.customer.won").Key
	Args      []any  // for Key, as those of a Text
	Amount    int64
	Currency  string // ISO 4217, beside KindMoney
	Time      time.Time
	Items     []Text
	Actions   []Action
	State     State
	Tone      Tone
	Href      string // makes the value a link
	RevealURL string // when masked: where a GET asks for the reason; empty: not offered
	Role      Text   // when hidden: the role that may see it, T("role.finance"); zero: not said
	Strong    bool   // the name of a row
}

// Action is a link or, with Post, a button that posts a form. One with Fields opens to ask for them first, without script too.
type Action struct {
	Label  Text
	Href   string
	Post   bool
	Inputs []Input // form values of a Post
	Fields []Field // of a Post: what is asked for; each has an ID of its own on the page
	Tone   Tone    // Danger for what takes something away
}

// Input is a form value that nobody sees.
type Input struct{ Name, Value string }

// Fact is a line of a label and a value.
type Fact struct {
	Label Text
	Cell  Cell
}

// Frame is what surrounds every page.
//
// The forms of the frame post to fixed paths: /search with q (posted, so that names and numbers stay
// out of addresses), /language with lang and back, /sign-out. GET /search shows *Search without a query.
type Frame struct {
	Lang    string // one of Languages; see Match
	Title   Text
	Path    string // of this page, for the way back after a change of language
	User    *User  // nil when signed out: the page has no search and no navigation
	Nav     []NavGroup
	Verdict *Verdict // of the log; nil: not shown
	Flash   *Flash   // what the last act did; nil: nothing to say
	DevKey  bool     // the keys are wrapped by a development key
	Sandbox bool     // nobody in this installation is real
	Plain   bool     // served without TLS
	Query   string   // what the search box holds
}

// User is who is signed in.
type User struct {
	Name  string
	Roles []Text // T("role.sales")
	Href  string // own page; empty: none
}

// NavGroup is a group of the navigation: T("nav.work"), deals, service, data, trust.
type NavGroup struct {
	Label Text
	Items []NavItem
}

// NavItem is one entry of the navigation.
type NavItem struct {
	Label  Text
	Href   string
	Note   Text // a count such as Plain("7") or T("nav.due", 3)
	Active bool
}

// Verdict is the state of the log.
type Verdict struct {
	State  string    // lower case: unanchored, pinned, anchored, truncated, altered and so on, or unchecked
	OK     bool      // nothing is wrong; only pinned and anchored show in green
	Events uint64    // size of the log
	At     time.Time // last checkpoint
	Href   string    // the log's page
}

// Flash is one line above the content.
type Flash struct {
	Text Text
	Tone Tone
}

// SignIn is the page before all others. It posts email, password and back to /sign-in.
type SignIn struct {
	Email  string // as typed before
	Back   string // path to go to afterwards
	Failed bool   // one answer for every reason
	Notice Text   // such as T("signin.ended")
	With   *Passkey

	Provider *Button // of a sign-in elsewhere; nil: there is none
}

// Button is a form of one button. It posts back to Action.
type Button struct {
	Action, Back string
	Label        Text
}

// Leave is the page that sends a browser to the provider of sign-in, which the header Refresh does too.
type Leave struct{ To, Name string }

// Second is the page after the password of who has a second factor. It posts code and back to /sign-in/second.
type Second struct {
	Back   string
	Failed bool
	With   *Passkey
}

// Passkey is a form that only a script can fill in: it asks Begin, by POST, for options and a ceremony, lets the browser answer, and posts ceremony, response, back and,
// with Name, name to Action. Without script, or in a browser without passkeys, it is not shown.
type Passkey struct {
	Action, Begin string
	Make          bool // a new one; else one is used
	Name          bool // asks how it is to be called
	Back          string
	Label         Text
}

// Security is the page of a person's own factors.
type Security struct {
	Must     Text // why a second factor has to be enrolled before anything else
	Error    Text
	TOTP     bool
	Codes    int64 // on paper that are left
	Passkeys []EnrolledPasskey
	Enrol    *Passkey
	Scan     *Scan    // an app is being enrolled
	NewCodes []string // shown now and never again
}

// EnrolledPasskey is one passkey of a person. Renaming and removing post its id.
type EnrolledPasskey struct {
	ID, Name      string
	Created, Used time.Time
	Synced        bool
	Cloned        bool
}

// Scan is what an authenticator app is given.
type Scan struct {
	Key  string // to be typed; "" = it was shown before
	Size int    // of the QR code, with its margin
	Path string // of its dark squares, for SVG
}

// Home is the first page after signing in.
type Home struct {
	Name     string
	News     Text   // what happened to the visitor's sign-in since they were here last; zero: nothing
	NewsHref string // where it is told
	Counts   []Count
	Lists    []List // overdue follow-ups, recent records
}

// Count is one figure on Home.
type Count struct {
	Label Text
	Value int64
	Href  string
	Tone  Tone
}

// List is a table of records: a page of its own, a part of Detail, Home or Search, or a fragment.
type List struct {
	ID        string   // unique on the page, letters and dashes; empty: "list"
	Title     Text     // T("type.customer.many")
	Count     int64    // rows that the reader may see, counted to CountMost and one; negative: not said
	Primary   *Action  // the one button of the page
	Secondary []Action // quieter ones
	Chips     []Chip   // filters
	Columns   []Column
	Rows      []Row
	First     int64  // number of the first row, from 1; 0: not said
	NextHref  string // empty on the last page
	PrevHref  string // usually the first page
	Policy    []Text // which controls masked what: T("policy.masked", T("field.phone"), "field.phone")
	Empty     Empty  // shown instead of an empty table
}

// Chip is a filter above a list.
type Chip struct {
	Label  Text
	Href   string
	Active bool
}

// Column heads a column. Numbers and money stand to the right.
type Column struct {
	Label Text
	Kind  Kind
}

// Row is one line of a List. Cells stand in the order of Columns.
type Row struct {
	Href  string // the record's page; the first cell links to it
	Cells []Cell
}

// Empty is what stands where nothing is, and the next step.
type Empty struct {
	Text   Text
	Action *Action
}

// Detail is the page of one record.
type Detail struct {
	Title      Cell
	Badge      *Cell  // where it stands
	Subtitle   []Text // owner, team
	Edit       string // link; empty: may not
	Primary    *Action
	Secondary  []Action
	Notice     Text // such as T("detail.deleted")
	Progress   *Progress
	Tabs       []Tab
	Sections   []Section
	Lists      []List
	Panels     []Panel  // beside the record, above everything else there
	Timeline   []Entry  // newest first; nil: no timeline
	Why        []Reason // why the reader can see this
	Access     []Fact   // below Why: people with access, times opened
	Protection []Fact   // person key, last backup, consent, retention
	Moves      []Action // lifecycle moves and removal; all are posted with the version
	Version    int64    // sent as version with every move
}

// Panel is a card beside a record: what there is to know of one matter, and what may be done about it.
type Panel struct {
	Title   Text
	Note    Text
	Facts   []Fact
	Actions []Action // posted with the version, as Moves
}

// Tab is a part of a record with a page of its own.
type Tab struct {
	Label  Text
	Count  int64 // 0: not shown
	Href   string
	Active bool
}

// Section is a card of facts.
type Section struct {
	Title Text
	Note  Text // small, such as T("detail.edited", t)
	Rows  []Fact
}

// Entry is one line of a timeline.
type Entry struct {
	Time   time.Time
	Title  Text
	Detail []Text // small line: who, where
	Href   string
	Tone   Tone
}

// Reason is one line of why the reader can see a record.
type Reason struct {
	Text    Text   // T("why.rbac.own", T("type.customer"))
	Control string // id of the control
	Tone    Tone   // Accent for what opens, Neutral for what limits
}

// Form makes or changes a record. It posts its fields, version when not 0, and lines.N.product,
// lines.N.quantity, lines.N.unit_price, lines.N.discount and lines.N.tax when Lines is set.
type Form struct {
	Title    Text
	Action   string // where it posts
	Version  int64
	Errors   []Text // of the whole form
	Warnings []Text // what is to be looked at before it is posted again
	Found    *List  // what the warnings are about; its rows have no buttons
	Sections []FormSection
	Lines    *Lines
	Submit   Text // T("act.save")
	Anyway   Text // a second button, which posts anyway with it; zero: there is none
	Cancel   string
	Note     Text   // such as T("form.masked.note")
	Username string // beside a new password, for password managers; not shown
	With     *Passkey
	Provider *Button
}

// Pair is two records side by side, of which one is made. It posts Hidden and, for each row with a choice, take.NAME as keep or drop to Action.
type Pair struct {
	Title      Text
	Note       Text
	Action     string
	Hidden     []Input
	Keep, Drop PairSide
	Swap       string // link to the page with the sides exchanged
	Rows       []PairRow
	Submit     Text
	Cancel     string
}

// PairSide is one record of a Pair.
type PairSide struct {
	Label Text // what becomes of it
	Title Cell
	Note  Text
}

// PairRow is one field of both.
type PairRow struct {
	Name       string
	Label      Text
	Keep, Drop Cell
	Choice     bool // one of them is to be chosen
	FromDrop   bool // the one that goes is chosen at first
}

// FormSection groups fields.
type FormSection struct {
	Title  Text
	Fields []Field
}

// FieldKind says how a field is filled in.
type FieldKind uint8

// The kinds of a Field.
const (
	FieldText FieldKind = iota
	FieldTextarea
	FieldEmail
	FieldTel
	FieldMoney    // Value in major units with a point: 1234.50
	FieldNumber   // a whole number
	FieldDate     // Value as 2006-01-02
	FieldTime     // Value as 2006-01-02T15:04
	FieldSelect   // one of Options
	FieldCheckbox // Value on or empty
	FieldChecks   // any of Options; each posts Name
	FieldHidden
	FieldURL
	FieldPassword // Value is never shown; one named old or current asks for the present password
	FieldFile     // a form with one is posted as multipart/form-data, its fields in their order
)

// Field is one field of a Form.
type Field struct {
	Name     string // as it is posted
	ID       string // of the element; empty: from Name
	Kind     FieldKind
	Label    Text
	Value    string
	Values   []string // chosen ones of FieldChecks
	Options  []Option
	Currency string
	Mask     string // not empty: the reader holds only this mask; left empty the value stays
	Locked   bool   // hidden by policy: not editable, not sent
	Role     Text   // when Locked: who may see it
	Fixed    bool   // may no longer change: shown, not editable
	Required bool
	Errors   []Text // T("rule.required")
	Help     Text
	Wide     bool // as wide as the form
}

// Option is one choice.
type Option struct {
	Value string
	Label Text
}

// Lines are the lines of a quote. At least five rows are shown; a row whose product is empty is not
// meant as a line. Discount and tax are in percent, such as 13 or 2.5.
type Lines struct {
	Rows     []LineRow
	Products []string // that are offered while one is typed
	Currency string
	Errors   []Text
}

// LineRow is one line as typed.
type LineRow struct {
	Product, Quantity, UnitPrice, Discount, Tax string
	Errors                                      []Text
}

// Reveal asks why a masked value is to be shown and, with Value, shows it. As a page it works without
// script; as a fragment it replaces the mask in place. It posts reason to Action.
type Reveal struct {
	Label  Text   // T("field.customer.phone")
	Record string // which record, as the reader may see it
	Mask   string
	Action string // where the reason is posted; a GET of it asks
	Back   string // the record's page
	Reason string // as typed before
	Error  Text   // T("reveal.reason.required")
	Value  *Value // nil: still to be asked
}

// Value is a revealed value.
type Value struct {
	Text    string
	Mask    string        // what stands there again afterwards
	Again   string        // where to ask again
	For     time.Duration // how long it is shown; 0: 30 s
	Event   uint64        // index of the event in the log
	LogHref string        // page of the event; empty: no link
}

// Log is the page of the log.
type Log struct {
	Verdict    Verdict
	Origin     string // name of the log
	Reason     string // one line of the verdict, machine text
	Checkpoint string // root hash of the last checkpoint, base64
	Facts      []Fact // more about the verdict: details opened, erased, unchecked
	Command    string // to verify it from outside
	Filter     LogFilter
	Actions    []Option // for the filter
	Actors     []Option
	Events     []Event // newest first
	NextHref   string
	PrevHref   string
}

// LogFilter is what the log is narrowed to; it is sent by GET as actor, action, from and to.
type LogFilter struct {
	Actor, Action string
	From, To      string // 2006-01-02
}

// Event is one event of the log: a line of Log, or a page of its own with all that is stored.
type Event struct {
	Index      uint64
	Time       time.Time
	Actor      string // name as the reader may see it, or the id
	Action     string // customer.read
	Outcome    string // allowed, denied, failed, intended, aborted
	Target     Text   // the record
	TargetHref string
	Targets    []Fact // all records of the event
	Fields     []Text
	Controls   []string
	Href       string
	Facts      []Fact // page only: session, tenant, policy digest, count, note
	Hashes     []Fact // page only: leaf, chain
	Details    []Commitment
	PrevHref   string
	NextHref   string
}

// Commitment is one personal detail of an event: what is hashed stays, what it opens to may be erased.
type Commitment struct {
	Name   string
	Hash   string
	State  State  // Clear: opened; Hidden: not for this reader; Sealed: not opened; Erased
	Value  string // when Clear
	Person string // id
}

// Backups is the page of backups.
type Backups struct {
	Target       string // where they go, without credentials
	Run          *Action
	Progress     *Progress
	Snapshots    []Snapshot // newest first
	Keys         []Fact     // where the keys lie
	Objectives   []Fact     // what the plan asks of them, and whether it is so
	Commands     []Command
	RecoveryHere bool // the private recovery key still lies on this host
	Failed       Text // the last run failed
}

// Snapshot is one backup.
type Snapshot struct {
	ID       string
	Time     time.Time
	Rows     int64
	Bytes    int64
	Took     time.Duration
	Verified time.Time // zero: not yet
	Failed   Text      // why verification failed; zero: it did not
}

// Progress is work that takes long.
type Progress struct {
	Label  Text
	Done   int64
	Total  int64 // 0: unknown
	Rate   int64 // rows per second
	Left   time.Duration
	Cancel *Action
}

// Command is a line for a terminal.
type Command struct {
	Label Text
	Line  string
}

// Error says what happened, what was kept and what to do.
type Error struct {
	Status   int
	Title    Text     // zero: by Status
	What     Text     // zero: by Status
	Kept     Text     // what was kept; zero: by Status
	Do       Text     // what to do; zero: by Status
	Controls []string // of a denial: which controls denied
	Ask      Text     // how to ask for access; zero beside Controls: the usual way
	Ref      string   // for whoever looks into the log
	Actions  []Action
}

// Numbers is a page of counts and sums.
type Numbers struct {
	Title Text
	Note  Text   // how to read them
	At    Text   // when they were counted
	Chips []Chip // of what
	Lists []List
}

// Search is the page of a search.
type Search struct {
	Query string
	Lists []List
	Note  Text  // what was searched and how: T("search.note")
	Empty Empty // zero: the usual words
}

// Options changes how pages are rendered; nil is all zero values.
type Options struct {
	Now  func() time.Time // zero: time.Now
	Zone *time.Location   // of times shown; zero: time.Local
}

// Renderer writes pages. Its methods are safe for concurrent use.
type Renderer struct {
	langs map[string]*language
}
