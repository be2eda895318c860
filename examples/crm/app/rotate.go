package app

import (
	"context"

	"github.com/crmguard/crmguard/audit"
)

// Rotate begins a new key epoch. It may be interrupted and run again.
func (a *App) Rotate(ctx context.Context, progress func(done, total int)) error {
	e := audit.Event{
		Action: "keys.rotate", Activity: audit.Configure, Outcome: audit.Allowed, Actor: "system", Tenant: Tenant,
		Note: a.Keeper.KEKID(),
	}
	if _, err := a.Log.Append(ctx, e); err != nil {
		return err
	}
	total := 0
	err := a.Keeper.Rotate(ctx, Tenant, func(done, n int) {
		total = n
		if progress != nil {
			progress(done, n)
		}
	})
	e.Action, e.Count = "keys.rotated", int64(total)
	if err != nil {
		e.Outcome = audit.Failed
	}
	if _, logged := a.Log.Append(context.WithoutCancel(ctx), e); logged != nil && err == nil {
		err = logged
	}
	return err
}
