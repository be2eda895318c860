package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// TypeOptions of For. Nil means the zero value of each field.
type TypeOptions struct {
	Type        string                           // name of the type in store, policy and log; "": the struct's, lower snake case
	Normalizers map[string]func(string) []string // nil: those of encrypt/normalize
	Masks       map[string]func(string) string   // nil: those of encrypt/normalize
}

// Record is a pointer to a struct with protect tags that embeds crm.Meta, which gives it these methods.
type Record interface {
	Header() crm.Header
	SetHeader(crm.Header)
}

// Records are the protected records of one type. It is safe for concurrent use.
type Records[P Record] struct {
	kind
	codec *encrypt.Codec[P]
}

// kind is what Records are apart from the values themselves, so that one compiled copy of it serves all types.
type kind struct {
	g       *Guard
	typ     string
	fields  []encrypt.Field // all, in the codec's order
	sealed  []encrypt.Field
	columns []crm.Column // of the clear fields, in order
	column  map[string]int
	state   string // the column that policies call state; "" when the type has none

	attributes []attributeColumn // those that the type has

}

// For makes the door to the records of one type, to which P points, and
// declares the type to the store. A type whose tags contradict each other or leave personal data in the
// clear is refused. When P has Validate() error or CheckUpdate(prev P) error, they are asked before a
// write; prev has only its clear fields.
func For[P Record](ctx context.Context, g *Guard, opts *TypeOptions) (*Records[P], error) {
	r, schema, err := door[P](g, opts)
	if err != nil {
		return nil, err
	}
	if err := g.store.Declare(ctx, schema); err != nil {
		return nil, fmt.Errorf("guard: type %s: %w", r.typ, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.types[r.typ] = typeOf{schema, r}
	return r, nil
}

// door is For without the store.
func door[P Record](g *Guard, opts *TypeOptions) (*Records[P], crm.Schema, error) {
	codec, schema, err := compile[P](g.region, opts)
	if err != nil {
		return nil, crm.Schema{}, err
	}
	r := &Records[P]{codec: codec, kind: kind{
		g: g, typ: codec.Type(), fields: codec.Fields(), columns: schema.Columns, column: map[string]int{},
	}}
	for _, f := range r.fields {
		if !f.Clear {
			r.sealed = append(r.sealed, f)
		}
	}
	for i, c := range r.columns {
		r.column[c.Name] = i
	}
	for _, name := range []string{"owner", "team"} {
		if i, ok := r.column[name]; !ok || r.columns[i].Kind != crm.KindString {
			return nil, crm.Schema{}, fmt.Errorf("guard: type %s has no clear field %s; embed crm.Meta", r.typ, name)
		}
	}
	for _, name := range []string{"state", "stage", "status"} {
		if i, ok := r.column[name]; ok && r.columns[i].Kind == crm.KindString {
			r.state = name
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if i, ok := r.attribute(name); ok {
			r.attributes = append(r.attributes, attributeColumn{name, i})
		}
	}
	return r, schema, nil
}

// Schema returns how records of a type are stored, for tools that look at rows from outside: see Check.
func Schema[P Record](opts *TypeOptions) (crm.Schema, error) {
	_, schema, err := compile[P]("CN", opts)
	return schema, err
}

// compile reads the tags. region is that of phone numbers typed without one.
func compile[P Record](region string, opts *TypeOptions) (*encrypt.Codec[P], crm.Schema, error) {
	var o TypeOptions
	if opts != nil {
		o = *opts
	}
	if o.Normalizers == nil {
		o.Normalizers = normalize.Normalizers(region)
	}
	if o.Masks == nil {
		o.Masks = normalize.Masks()
	}
	codec, err := encrypt.NewCodec[P](&encrypt.CodecOptions{Type: o.Type, Normalizers: o.Normalizers, Masks: o.Masks})
	if err != nil {
		return nil, crm.Schema{}, err
	}
	schema := crm.Schema{Type: codec.Type()}
	for _, f := range codec.Fields() {
		if f.Clear {
			schema.Columns = append(schema.Columns, crm.Column{Name: f.Name, Kind: columnKind(f.Kind), Indexed: f.Indexed})
		}
	}
	return codec, schema, nil
}

func columnKind(k encrypt.Kind) crm.Kind {
	switch k {
	case encrypt.KindInt:
		return crm.KindInt
	case encrypt.KindBool:
		return crm.KindBool
	case encrypt.KindTime:
		return crm.KindTime
	}
	return crm.KindString
}

// Type returns the name of the type in store, policy and log.
func (r *kind) Type() string { return r.typ }

// Fields describes the stored fields in the struct's order.
func (r *kind) Fields() []encrypt.Field { return r.fields }

// New returns an empty record.
func (r *Records[P]) New() P { return r.codec.New() }

// Copy returns a copy of v, as an assignment makes it: what v points to is shared.
func (r *Records[P]) Copy(v P) P { return r.codec.Copy(v) }

// View is a record as one caller may see it: personal fields are clear, masked, hidden or erased, as
// their State says.
type View[P Record] struct {
	Value    P
	Controls []string          // why the caller may see it
	Fields   map[string]Access // for each field, by name; views of a page may share it, so it is not changed
	Event    uint64            // the log's event of this reading
}

// Access is how much of a field the policy shows to the caller.
type Access = authz.Access

// str returns a clear text column of a row, "" when null.
func (r *kind) str(row *crm.Row, column string) string {
	if i, ok := r.column[column]; ok && i < len(row.Clear) {
		return row.Clear[i].Str()
	}
	return ""
}

// resource is what the policy knows of a row: owner, team, state and id, and of the attributes level, amount,
// held, compartments, actors and consents those for which the type has a clear column of that name and kind; pool is the
// column free_in. Sets of words are texts as cond.Words writes them.
func (r *kind) resource(row *crm.Row) authz.Resource {
	res := authz.Resource{
		Tenant: row.Tenant, Type: r.typ, ID: row.ID.String(),
		Owner: r.str(row, "owner"), Team: r.str(row, "team"),
	}
	if r.state != "" {
		res.State = r.str(row, r.state)
	}
	for _, a := range r.attributes {
		if a.column >= len(row.Clear) {
			continue
		}
		v := row.Clear[a.column]
		switch a.name {
		case "level":
			res.Level = int(v.Int())
		case "amount":
			res.Amount = v.Int()
		case "pool":
			res.Pool = v.Str()
		case "held":
			res.Held = v.Any() == true
		case "compartments":
			res.Compartments = wordsOf(v.Str())
		case "actors":
			res.Actors = wordsOf(v.Str())
		case "consents":
			res.Consents = wordsOf(v.Str())
		}
	}
	return res
}

// attributes are what a policy may know of a record where its type has such a column, with what it is in SQL for
// a type that has not.
var attributes = map[string]struct {
	column string
	kind   crm.Kind
	absent string
}{
	"level": {"level", crm.KindInt, "0"}, "amount": {"amount", crm.KindInt, "0"}, "held": {"held", crm.KindBool, "(1=0)"},
	"compartments": {"compartments", crm.KindString, "''"}, "actors": {"actors", crm.KindString, "''"},
	"consents": {"consents", crm.KindString, "''"}, "pool": {"free_in", crm.KindString, "''"},
}

// attributeColumn is an attribute that a type has.
type attributeColumn struct {
	name   string
	column int
}

// attribute returns the column that holds an attribute of the policy. The amount of what has lines is their total.
func (r *kind) attribute(name string) (int, bool) {
	a := attributes[name]
	i, ok := r.column[a.column]
	if !ok && name == "amount" {
		i, ok = r.column["total"]
	}
	return i, ok && r.columns[i].Kind == a.kind
}

// wordsOf reads what cond.Words wrote.
func wordsOf(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(strings.TrimPrefix(text, "<"), ">"), "><")
}

// decider decides on the rows of one operation.
type decider struct {
	policy authz.Authorizer
	req    authz.Request
	hide   []string // fields that are hidden whatever the policy says
}

func (g *Guard) decider(c Caller, a authz.Action) *decider {
	return &decider{policy: g.of(c), req: authz.Request{Subject: c.subject(a), Action: a, Environment: c.Environment}}
}

// subject is the caller as the policy sees them. What goes over many records sees those that only an emergency opens when
// its obligations are met, which are those of single records.
func (c Caller) subject(a authz.Action) authz.Subject {
	s := c.Subject
	switch a {
	case authz.List, authz.Search, authz.Export, authz.Aggregate, authz.Browse:
		met := c.met()
		if !slices.Contains(met, authz.NeedReason) || !slices.Contains(met, authz.NeedReview) {
			s.Emergencies = nil
		}
	}
	return s
}

// resourceOf is what the policy knows of a record that is not stored.
func (r *Records[P]) resourceOf(tenant string, v P) (authz.Resource, error) {
	values, err := r.codec.ClearValues(v)
	if err != nil {
		return authz.Resource{}, fmt.Errorf("guard: %w", err)
	}
	row := crm.Row{Tenant: tenant, ID: v.Header().ID, Clear: make([]crm.Value, len(values))}
	for i, a := range values {
		row.Clear[i], _ = crm.ValueOf(a)
	}
	return r.resource(&row), nil
}

func (d *decider) decide(ctx context.Context, res authz.Resource) (authz.Decision, error) {
	d.req.Resource = res
	dec, err := d.policy.Decide(ctx, d.req)
	if err != nil {
		return authz.Decision{}, fmt.Errorf("guard: %w", err)
	}
	if len(d.hide) > 0 {
		byName := maps.Clone(dec.Fields.ByName)
		if byName == nil {
			byName = map[string]authz.Access{}
		}
		for _, name := range d.hide {
			byName[name] = authz.Hidden
		}
		dec.Fields.ByName = byName
	}
	return dec, nil
}

// sample decides for a record that the caller would own, or that would be free in a pool of theirs, which every kind of grant
// reaches. It tells which fields of the type the caller may filter, sort and search.
func (r *kind) sample(ctx context.Context, c Caller, d *decider) (authz.Decision, error) {
	res := authz.Resource{Tenant: c.Subject.Tenant, Type: r.typ, Owner: c.Subject.ID, Team: c.Subject.Team}
	if len(c.Subject.Pools) > 0 {
		res.Pool = c.Subject.Pools[0]
	}
	return d.decide(ctx, res)
}

// field returns the description of a field.
func (r *kind) field(name string) (encrypt.Field, bool) {
	i := slices.IndexFunc(r.fields, func(f encrypt.Field) bool { return f.Name == name })
	if i < 0 {
		return encrypt.Field{}, false
	}
	return r.fields[i], true
}

// where adapts a policy's filter to the columns of the type.
type where struct {
	cond cond.Cond
	has  func(attribute string) (column string, ok bool) // an attribute beyond owner, team, state and id
	text string                                          // the column of the state
}

func (r *kind) where(f authz.Filter) where {
	return where{
		cond: f.Cond(), text: r.state,
		has: func(name string) (string, bool) {
			i, ok := r.attribute(name)
			if !ok {
				return "", false
			}
			return r.columns[i].Name, true
		},
	}
}

// name returns the column of an attribute, or what it is in SQL for a type that does not have it.
func (w where) name(attr string) (column, absent string) {
	if attr == "state" {
		return w.text, "''"
	}
	if a, ok := attributes[attr]; ok {
		if column, ok := w.has(attr); ok {
			return column, ""
		}
		return "", a.absent
	}
	return attr, ""
}

// Match answers for one row; what a type does not have is "", 0, false or nothing.
func (w where) Match(column func(string) any) bool {
	return w.cond.Match(func(attr string) any {
		name, _ := w.name(attr)
		var v any
		if name != "" {
			v = column(name)
		}
		switch attr {
		case "compartments", "actors", "consents":
			text, _ := v.(string)
			return wordsOf(text)
		}
		switch {
		case name != "":
			return v
		case attr == "level" || attr == "amount":
			return int64(0)
		case attr == "held":
			return false
		}
		return ""
	})
}

// SQL writes the filter over the type's columns.
func (w where) SQL(column func(string) (string, error)) (string, []any, error) {
	c := w.cond.Convert(crm.ColumnID, func(v any) any {
		text, _ := v.(string)
		id, err := crm.ParseUUID(text)
		if err != nil {
			return crm.UUID{} // no record's
		}
		return id
	})
	return c.SQL(cond.Question, func(attr string) (string, error) {
		name, absent := w.name(attr)
		if name == "" {
			return absent, nil
		}
		return column(name)
	})
}

// authentic checks the MACs of rows.
func (r *kind) authentic(ctx context.Context, tenant string, rows []crm.Row) error {
	for i := range rows {
		row := &rows[i]
		if row.Tenant != tenant || row.Type != r.typ || row.Version < 1 {
			return fmt.Errorf("%w: %s %s", ErrForged, r.typ, row.ID)
		}
		err := r.g.keeper.VerifyMAC(ctx, tenant, macLabel, digest(row, r.columns), row.MAC)
		if errors.Is(err, encrypt.ErrTampered) {
			return r.forged(ctx, tenant, row)
		}
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return nil
}

// forged puts a row that does not authenticate into the log.
func (r *kind) forged(ctx context.Context, tenant string, row *crm.Row) error {
	_, err := r.g.log.Append(ctx, audit.Event{
		Action: "guard.forged", Outcome: audit.Failed, Tenant: tenant,
		Targets: []audit.Target{{Type: r.typ, ID: row.ID.String()}},
	})
	return errors.Join(fmt.Errorf("%w: %s %s", ErrForged, r.typ, row.ID), err)
}

// hydrate sets the clear fields and the header of v from a row.
func (r *Records[P]) hydrate(row *crm.Row, v P) error {
	return r.hydrateFrom(make([]any, len(r.columns)), row, v)
}

// hydrateFrom is hydrate with the space that it needs.
func (r *Records[P]) hydrateFrom(values []any, row *crm.Row, v P) error {
	for i := range values {
		values[i] = nil
		if i < len(row.Clear) {
			values[i] = row.Clear[i].Any()
		}
	}
	if err := r.codec.SetClear(v, values); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	h := v.Header() // owner, team and times are clear columns
	h.ID, h.Version, h.Deleted = row.ID, row.Version, row.Deleted
	h.Person = personOf(row)
	v.SetHeader(h)
	return nil
}

// record names a row to the codec.
func recordOf(row *crm.Row) encrypt.Record {
	return encrypt.Record{Tenant: row.Tenant, ID: row.ID, Person: personOf(row)}
}

// valuesOf appends the fields as the codec opens them, without tokens, to the space, and returns them and the space.
func valuesOf(space []encrypt.SealedField, fields []crm.SealedField) (out, rest []encrypt.SealedField) {
	from := len(space)
	for i := range fields {
		space = append(space, encrypt.SealedField{Name: fields[i].Name, Data: fields[i].Data})
	}
	return space[from:len(space):len(space)], space
}

// fieldSpaces are what valuesOf appends to.
var fieldSpaces = sync.Pool{New: func() any { s := make([]encrypt.SealedField, 0, 512); return &s }}

// sealedOf and rowSealed convert between the store's and the codec's view of sealed fields.
func sealedOf(fields []crm.SealedField) []encrypt.SealedField {
	out := make([]encrypt.SealedField, len(fields))
	for i, f := range fields {
		out[i] = encrypt.SealedField{Name: f.Name, Data: f.Data, Tokens: make([]encrypt.Token, len(f.Tokens))}
		for j, t := range f.Tokens {
			out[i].Tokens[j] = encrypt.Token(t)
		}
	}
	return out
}

func rowSealed(fields []encrypt.SealedField) []crm.SealedField {
	out := make([]crm.SealedField, len(fields))
	for i, f := range fields {
		out[i] = crm.SealedField{Name: f.Name, Data: f.Data, Tokens: make([]crm.Token, len(f.Tokens))}
		for j, t := range f.Tokens {
			out[i].Tokens[j] = crm.Token(t)
		}
	}
	return out
}

// personOf returns the record's own person, which a row names first.
func personOf(row *crm.Row) crm.UUID {
	if len(row.Persons) == 0 {
		return crm.UUID{}
	}
	return row.Persons[0]
}
