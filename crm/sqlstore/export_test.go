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
	way, err := s.way(ctx, t, in, &q)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts(&q, after) {
		p.way = way
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

// SetAnalyzeAfter changes after how many rows statistics are made; the returned function changes it back.
func SetAnalyzeAfter(n int64) (back func()) {
	old := analyzeAfter
	analyzeAfter = n
	return func() { analyzeAfter = old }
}

// SetRecent changes how many tokens SQLite's table of the newest ones keeps and how many move at once; the returned function changes it back.
func SetRecent(most, least int64) (back func()) {
	oldMost, oldLeast := mostRecent, leastMoved
	mostRecent, leastMoved = most, least
	return func() { mostRecent, leastMoved = oldMost, oldLeast }
}

// MoveStatements are those that move tokens.
func MoveStatements() []string { return []string{runEnd, settleRun, deleteRun} }

// CarriedStatement is the one that asks for the rows of n tokens.
func (s *Store) CarriedStatement(n int) string {
	text, _ := s.carried(1, make([]any, n), 1)
	return text
}
