package guardbench

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// columns of the plain table, in the order in which values and scan name them.
const columns = `id, person, version, owner, team, created_at, updated_at, kind, name, contact, phone, phone2, email,
	address, website, id_number, note, city, country, industry, source, stage, open_value, credit_limit, currency,
	last_follow_up, external_id`

const schema = `CREATE TABLE customer (
	row_id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, deleted INTEGER NOT NULL,
	id BLOB NOT NULL, person BLOB NOT NULL, version INTEGER NOT NULL, owner TEXT NOT NULL, team TEXT NOT NULL,
	created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
	kind TEXT, name TEXT, contact TEXT, phone TEXT, phone2 TEXT, email TEXT, address TEXT, website TEXT, id_number TEXT,
	note TEXT, city TEXT, country TEXT, industry TEXT, source TEXT, stage TEXT, open_value INTEGER, credit_limit INTEGER,
	currency TEXT, last_follow_up INTEGER, external_id TEXT, UNIQUE (tenant, id));
CREATE INDEX customer_owner ON customer (tenant, owner, row_id);`

// peer is the same query without protection: one table, every column in the clear, an index for each
// query, database/sql.
type peer struct{ w, r *sql.DB }

func newPeer(ctx context.Context, w, r *sql.DB, customers []*crm.Customer) (*peer, error) {
	if _, err := w.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	tx, err := w.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	insert := `INSERT INTO customer (tenant, deleted, ` + columns + `) VALUES ('default', 0` +
		strings.Repeat(", ?", 1+strings.Count(columns, ",")) + `)`
	for _, c := range customers {
		id, person := c.ID.UUID(), c.Person.UUID()
		if _, err := tx.ExecContext(ctx, insert,
			id[:], person[:], c.Version, c.Owner.String(), c.Team, c.CreatedAt.UnixMicro(), c.UpdatedAt.UnixMicro(),
			string(c.Kind), c.Name.Expose(), c.Contact.Expose(), c.Phone.Expose(), c.Phone2.Expose(), c.Email.Expose(),
			c.Address.Expose(), c.Website.Expose(), c.IDNumber.Expose(), c.Note.Expose(), c.City, c.Country, c.Industry,
			c.Source, string(c.Stage), c.OpenValue, c.CreditLimit, c.Currency, c.LastFollowUp.UnixMicro(), c.ExternalID,
		); err != nil {
			return nil, err
		}
	}
	return &peer{w, r}, tx.Commit()
}

// scan reads one row into a customer, as any program would.
func scan(rows interface{ Scan(...any) error }) (c crm.Customer, err error) {
	var id, person []byte
	var owner, kind, stage string
	var name, contact, phone, phone2, email, address, website, number, note string
	var created, updated, followed int64
	err = rows.Scan(&id, &person, &c.Version, &owner, &c.Team, &created, &updated, &kind, &name, &contact, &phone,
		&phone2, &email, &address, &website, &number, &note, &c.City, &c.Country, &c.Industry, &c.Source, &stage,
		&c.OpenValue, &c.CreditLimit, &c.Currency, &followed, &c.ExternalID)
	if err != nil {
		return c, err
	}
	c.ID, c.Person = crm.ID[crm.Customer](id), crm.ID[crm.Person](person)
	if c.Owner, err = crm.ParseID[crm.Employee](owner); err != nil {
		return c, err
	}
	c.Kind, c.Stage = crm.CustomerKind(kind), crm.CustomerStage(stage)
	c.Name, c.Contact, c.Phone, c.Phone2 = crm.NewText(name), crm.NewText(contact), crm.NewText(phone), crm.NewText(phone2)
	c.Email, c.Address, c.Website = crm.NewText(email), crm.NewText(address), crm.NewText(website)
	c.IDNumber, c.Note = crm.NewText(number), crm.NewText(note)
	c.CreatedAt, c.UpdatedAt, c.LastFollowUp = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC(), time.UnixMicro(followed).UTC()
	return c, nil
}

func (p *peer) get(ctx context.Context, id crm.UUID) error {
	_, err := scan(p.r.QueryRowContext(ctx,
		`SELECT `+columns+` FROM customer WHERE tenant = ? AND id = ?`, "default", id[:]))
	return err
}

func (p *peer) list(ctx context.Context, owner string, limit int) error {
	rows, err := p.r.QueryContext(ctx, `SELECT `+columns+` FROM customer
		WHERE tenant = ? AND owner = ? AND deleted = 0 ORDER BY row_id LIMIT ?`, "default", owner, limit+1)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := make([]crm.Customer, 0, limit+1)
	for rows.Next() {
		c, err := scan(rows)
		if err != nil {
			return err
		}
		found = append(found, c)
	}
	if len(found) != limit+1 {
		return errors.New("the list is short")
	}
	return rows.Err()
}
