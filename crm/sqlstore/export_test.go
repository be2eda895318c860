package sqlstore

import (
	"context"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
)

// Statements returns the statements that List would run for q, with their arguments.
func (s *Store) Statements(ctx context.Context, q crm.Query) (texts []string, args [][]any, err error) {
	t, err := s.declaredType(q.Type)
	if err != nil {
		return nil, nil, err
	}
	after, err := request.Page(&q, &t.schema)
	if err != nil {
		return nil, nil, err
	}
	in, err := s.space(ctx, s.r, space{q.Tenant, q.Type})
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts(&q, after) {
		text, a, err := s.page(t, in, &q, p, q.Limit+1)
		if err != nil {
			return nil, nil, err
		}
		texts, args = append(texts, s.d.Rebind(text)), append(args, a)
	}
	return texts, args, nil
}

// SetReindexCost changes what one transaction of Reindex does; the returned function changes it back.
func SetReindexCost(n int) (back func()) {
	old := reindexCost
	reindexCost = n
	return func() { reindexCost = old }
}
