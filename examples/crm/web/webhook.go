package web

import (
	"net/http"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// rotateOverlap is how long the secret before signs beside a new one.
const rotateOverlap = 24 * time.Hour

// secretsOnce are secrets of endpoints that were just made, until the one who made them has seen them. They are in memory only.
type secretsOnce struct {
	mu  sync.Mutex
	all map[string]string // by session and endpoint
}

func (o *secretsOnce) put(r *request, id crm.UUID, s outbox.Secret) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil || len(o.all) > 1000 {
		o.all = map[string]string{}
	}
	o.all[r.session.ID+id.String()] = s.Expose()
}

func (o *secretsOnce) take(r *request, id crm.UUID) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := r.session.ID + id.String()
	s := o.all[key]
	delete(o.all, key)
	return s
}

// webhooks registers what endpoints and deliveries can do beyond being listed and read.
func (s *Server) webhooks(mux *http.ServeMux) {
	act := func(flash, back string, do func(r *request, u crm.UUID) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error {
			u, _, err := posted(r)
			if err != nil {
				return err
			}
			if err := do(r, u); err != nil {
				return err
			}
			return s.done(w, r, flash, back+u.String(), "")
		}
	}
	ob := s.app.Outbox
	s.handle(mux, "POST /endpoints/{id}/pause", act("saved", "/endpoints/", func(r *request, u crm.UUID) error { return ob.Pause(r.Context(), r.caller(), u) }))
	s.handle(mux, "POST /endpoints/{id}/resume", act("saved", "/endpoints/", func(r *request, u crm.UUID) error { return ob.Resume(r.Context(), r.caller(), u) }))
	s.handle(mux, "POST /endpoints/{id}/test", act("queued", "/endpoints/", func(r *request, u crm.UUID) error { return ob.Test(r.Context(), r.caller(), u) }))
	s.handle(mux, "POST /endpoints/{id}/replay", act("queued", "/endpoints/", func(r *request, u crm.UUID) error {
		_, err := ob.ReplayAll(r.Context(), r.caller(), u)
		return err
	}))
	s.handle(mux, "POST /endpoints/{id}/rotate", act("saved", "/endpoints/", func(r *request, u crm.UUID) error {
		secret, err := ob.Rotate(r.Context(), r.caller(), u, rotateOverlap)
		if err == nil {
			s.once.put(r, u, secret)
		}
		return err
	}))
	s.handle(mux, "POST /deliveries/{id}/replay", act("queued", "/deliveries/", func(r *request, u crm.UUID) error { return ob.Replay(r.Context(), r.caller(), u) }))
}

// webhookKinds describes endpoints and deliveries.
func (s *Server) webhookKinds() []kind {
	a := s.app
	view := func(name string) field { return field{name: name, kind: noInput} }

	endpoints := resourceOf(a.Endpoints, "endpoints", "name")
	endpoints.governs, endpoints.badge = true, "state"
	endpoints.list = []string{"name", "host", "types", "state", "reason", "owner", "last_at"}
	endpoints.sections = []section{{"main", []field{
		{name: "name", kind: page.FieldText, required: true}, {name: "url", kind: page.FieldText, required: true, wide: true},
		{name: "types", kind: page.FieldChecks, options: a.Outbox.Types(), labels: "type", wide: true},
		{name: "acts", kind: page.FieldChecks, options: []string{outbox.ActChanged, outbox.ActDeleted}, labels: "webhook", wide: true},
		view("host"), view("state"), view("reason"), view("last_at"), view("old_until"),
	}}}
	endpoints.prepare = func(v *outbox.Endpoint, _ *http.Request) []error {
		v.State, v.Acts = outbox.Paused, []string{outbox.ActChanged, outbox.ActDeleted}
		return nil
	}
	endpoints.store = func(r *request, v *outbox.Endpoint) error {
		secret, err := a.Outbox.Create(r.Context(), r.caller(), v)
		if err == nil {
			s.once.put(r, v.ID.UUID(), secret)
		}
		return err
	}
	endpoints.acts = func(r *request, v *guard.View[*outbox.Endpoint], base string) []page.Action {
		ok, _, err := a.Endpoints.May(r.Context(), r.caller(), authz.Update, v.Value)
		if !ok || err != nil {
			return nil
		}
		button := func(name string) page.Action {
			return page.Action{Label: page.T("act.webhook_" + name), Href: base + "/" + name, Post: true}
		}
		if v.Value.State == outbox.Paused {
			return []page.Action{button("resume"), button("rotate")}
		}
		return []page.Action{button("test"), button("replay"), button("rotate"), button("pause")}
	}
	endpoints.detail = func(r *request, d *page.Detail, v *guard.View[*outbox.Endpoint], _ string) error {
		if secret := s.once.take(r, v.Value.ID.UUID()); secret != "" {
			d.Notice = page.T("webhook.secret", secret)
		}
		return nil
	}

	deliveries := resourceOf(a.Deliveries, "deliveries", "")
	deliveries.governs, deliveries.badge, deliveries.ofCustomer = true, "state", true
	deliveries.store = func(*request, *outbox.Delivery) error { return crm.ErrNotFound } // they are made by changes
	deliveries.refs["endpoint"] = crm.TypeEndpoint
	deliveries.list = []string{"record_type", "act", "endpoint", "state", "tries", "status", "reason", "next_at", "made"}
	deliveries.sections = []section{{"main", []field{
		view("record_type"), view("record"), view("record_version"), view("act"), view("endpoint"), view("made"), view("tries"), view("status"), view("reason"), view("next_at"), view("done_at"),
	}}}
	deliveries.acts = func(r *request, v *guard.View[*outbox.Delivery], base string) []page.Action {
		ok, _, err := a.Deliveries.May(r.Context(), r.caller(), authz.Update, v.Value)
		if !ok || err != nil || v.Value.State != outbox.Dead {
			return nil
		}
		return []page.Action{{Label: page.T("act.webhook_replay"), Href: base + "/replay", Post: true}}
	}
	return []kind{endpoints, deliveries}
}
