package web

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
)

// apiProspect is what an erasure would be about.
type apiProspect struct {
	Body struct {
		Persons int            `json:"persons" doc:"ids of the human: the one of the record, and those that merges joined to it"`
		Records map[string]int `json:"records" doc:"how many records name them, by type, in the bin too"`
		Holds   []apiHold      `json:"holds"`
		Refused string         `json:"refused,omitempty" enum:"held,limit" doc:"why it would be refused now"`
	}
}

// apiHold is one legal hold that is not lifted.
type apiHold struct {
	ID    string    `json:"id"`
	State string    `json:"state" enum:"active,lifting"`
	Owner string    `json:"owner" doc:"who put it on"`
	At    time.Time `json:"at"`
}

// apiFound is a record by which somebody was found.
type apiFound struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type apiPeople struct {
	Body struct {
		Items []apiFound `json:"items"`
	}
}

// apiErasure is the receipt of an erasure.
type apiErasure struct {
	Body struct {
		ID      string    `json:"id"`
		State   string    `json:"state" enum:"requested,approved,refused,blocked,destroyed"`
		Version int64     `json:"version"`
		Event   uint64    `json:"event,omitempty" doc:"index of the event of the log that announced it"`
		Persons int64     `json:"persons,omitempty"`
		Records int64     `json:"records,omitempty"`
		Marks   int64     `json:"marks,omitempty"`
		Keys    int64     `json:"keys,omitempty"`
		Due     time.Time `json:"due,omitzero" doc:"after which the keys are destroyed"`
		GoneBy  time.Time `json:"gone_by,omitzero" doc:"when no copy of the keys opens any more"`
	}
}

type apiHeld struct {
	Body struct {
		ID      string `json:"id"`
		State   string `json:"state" enum:"active,lifting,lifted"`
		Version int64  `json:"version"`
	}
}

// erasureAPI registers the erasing of people and the register of legal holds.
func (s *Server) erasureAPI(api huma.API) {
	op := func(tag, id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: "/api/v1/" + path, Summary: summary, Tags: []string{tag}, MaxBodyBytes: 16 << 10}
	}
	caller := func(ctx context.Context) (guard.Caller, *request) {
		r := ctx.Value(apiKey{}).(*request)
		return r.caller(), r
	}
	type whom struct {
		Type   string `json:"type" enum:"customer,contact,lead,employee" doc:"of a record of theirs"`
		ID     string `json:"id" maxLength:"36" doc:"of the record"`
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
	erasure := func(ctx context.Context, c guard.Caller, u crm.UUID, err error) (*apiErasure, error) {
		if err != nil {
			return nil, apiFault(err)
		}
		v, err := s.app.Erasures.Get(ctx, c, u)
		if err != nil {
			return nil, apiFault(err)
		}
		e, out := v.Value, &apiErasure{}
		b := &out.Body
		b.ID, b.State, b.Version, b.Event = e.ID.String(), string(e.State), e.Version, uint64(e.LastEvent)
		b.Persons, b.Records, b.Marks, b.Keys, b.Due, b.GoneBy = e.Persons, e.Records, e.Marks, e.Keys, e.DueAt, e.GoneBy
		return out, nil
	}
	held := func(ctx context.Context, c guard.Caller, u crm.UUID, err error) (*apiHeld, error) {
		if err != nil {
			return nil, apiFault(err)
		}
		v, err := s.app.Holds.Records().Get(ctx, c, u)
		if err != nil {
			return nil, apiFault(err)
		}
		out := &apiHeld{}
		out.Body.ID, out.Body.State, out.Body.Version = v.Value.ID.String(), string(v.Value.State), v.Value.Version
		return out, nil
	}

	huma.Register(api, op("erasures", "find-person", "erasures/find", "Find the records of a person by a complete phone number, e-mail address or name, or by the id of one"),
		func(ctx context.Context, in *struct {
			Body struct {
				Term string `json:"term" minLength:"1" maxLength:"200"`
			}
		}) (*apiPeople, error) {
			_, r := caller(ctx)
			if err := s.mayErase(r); err != nil {
				return nil, apiFault(err)
			}
			found, err := s.persons(r, in.Body.Term)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiPeople{}
			out.Body.Items = []apiFound{}
			for _, p := range found {
				out.Body.Items = append(out.Body.Items, apiFound{p.typ, p.id.String()})
			}
			return out, nil
		})
	huma.Register(api, op("erasures", "preview-erasure", "erasures/preview", "Tell what erasing the person of a record would be about; nothing changes"),
		func(ctx context.Context, in *struct {
			Body struct {
				Type string `json:"type" enum:"customer,contact,lead,employee" doc:"of a record of theirs"`
				ID   string `json:"id" maxLength:"36" doc:"of the record"`
			}
		}) (*apiProspect, error) {
			u, err := crm.ParseUUID(in.Body.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			c, r := caller(ctx)
			if err := s.mayErase(r); err != nil {
				return nil, apiFault(err)
			}
			p, holds, err := s.app.WouldErase(ctx, c, in.Body.Type, u)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiProspect{}
			out.Body.Persons, out.Body.Records, out.Body.Holds = len(p.Persons), p.Records, []apiHold{}
			out.Body.Refused, _ = erasureFault(p.Refusal)
			for _, h := range holds {
				out.Body.Holds = append(out.Body.Holds, apiHold{h.ID.String(), string(h.State), h.Owner.String(), h.CreatedAt})
			}
			return out, nil
		})
	ask := op("erasures", "ask-erasure", "erasures", "Ask for the erasure of the person of a record; somebody else has to approve it. You have shown a factor at /step-up just before")
	ask.DefaultStatus = http.StatusCreated
	huma.Register(api, ask, func(ctx context.Context, in *struct{ Body whom }) (*apiErasure, error) {
		u, err := crm.ParseUUID(in.Body.ID)
		if err != nil {
			return nil, apiFault(crm.ErrNotFound)
		}
		c, r := caller(ctx)
		e := &privacy.Erasure{RecordType: in.Body.Type, Record: u, Reason: crm.NewText(in.Body.Reason)}
		if err = r.fresh(session.Erasure); err == nil {
			err = s.app.RequestErasure(ctx, c, e)
		}
		return erasure(ctx, c, e.ID.UUID(), err)
	})
	type decision struct {
		ID   string `path:"id" maxLength:"36"`
		Body struct {
			Version int64 `json:"version" minimum:"1" doc:"that you saw"`
		}
	}
	decide := func(in *decision, ctx context.Context) (guard.Caller, crm.UUID, error) {
		c, r := caller(ctx)
		u, err := crm.ParseUUID(in.ID)
		if err != nil {
			return c, u, crm.ErrNotFound
		}
		return c, u, r.fresh(session.Erasure)
	}
	for act, to := range map[string]privacy.ErasureState{"approve": privacy.ErasureApproved, "refuse": privacy.ErasureRefused} {
		huma.Register(api, op("erasures", act+"-erasure", "erasures/{id}/"+act, "Decide on the erasure that somebody else asked for: "+act+". What is approved is carried out at once"),
			func(ctx context.Context, in *decision) (*apiErasure, error) {
				c, u, err := decide(in, ctx)
				if err == nil {
					_, err = s.app.DecideErasure(ctx, c, u, in.Body.Version, to)
				}
				return erasure(ctx, c, u, err)
			})
	}
	huma.Register(api, op("erasures", "carry-erasure", "erasures/{id}/carry", "Carry out an erasure that was approved, or end it when its grace is over"),
		func(ctx context.Context, in *struct {
			ID string `path:"id" maxLength:"36"`
		}) (*apiErasure, error) {
			c, u, err := decide(&decision{ID: in.ID}, ctx)
			if err == nil {
				_, err = s.app.CarryErasure(ctx, c, u)
			}
			return erasure(ctx, c, u, err)
		})

	put := op("holds", "put-hold", "holds", "Put a legal hold on the person of a record: they are not erased, and their records are not purged, while it holds")
	put.DefaultStatus = http.StatusCreated
	huma.Register(api, put, func(ctx context.Context, in *struct{ Body whom }) (*apiHeld, error) {
		u, err := crm.ParseUUID(in.Body.ID)
		if err != nil {
			return nil, apiFault(crm.ErrNotFound)
		}
		c, r := caller(ctx)
		h := &privacy.Hold{RecordType: in.Body.Type, Record: u, Reason: crm.NewText(in.Body.Reason)}
		if err = r.fresh(session.Erasure); err == nil {
			err = s.app.PutHold(ctx, c, h)
		}
		return held(ctx, c, h.ID.UUID(), err)
	})
	huma.Register(api, op("holds", "lift-hold", "holds/{id}/lift", "Ask for the end of a legal hold; it holds on until somebody else agrees"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"36"`
			Body struct {
				Version int64  `json:"version" minimum:"1" doc:"that you saw"`
				Reason  string `json:"reason" minLength:"1" maxLength:"500"`
			}
		}) (*apiHeld, error) {
			c, u, err := decide(&decision{ID: in.ID}, ctx)
			if err == nil {
				err = s.app.Holds.AskLift(ctx, c, u, in.Body.Version, crm.NewText(in.Body.Reason))
			}
			return held(ctx, c, u, err)
		})
	for act, to := range map[string]privacy.HoldState{"approve": privacy.HoldLifted, "refuse": privacy.HoldActive} {
		huma.Register(api, op("holds", act+"-lift", "holds/{id}/"+act, "Decide on the end of a hold that somebody else asked for: "+act),
			func(ctx context.Context, in *decision) (*apiHeld, error) {
				c, u, err := decide(in, ctx)
				if err == nil {
					err = s.app.Holds.DecideLift(ctx, c, u, in.Body.Version, to)
				}
				return held(ctx, c, u, err)
			})
	}
}
