package authz

import (
	"context"
	"net/http"
)

type decisionKey struct{}

// Protect decides before next. request says what r asks for, and which obligations this server meets for
// it. A subject without an id is unauthenticated, 401; a denial, or an obligation not met, is 403 without
// detail; an error is 500. For a record that does not exist, leave the resource empty: it is denied as any
// other, so nobody learns what exists. next finds the decision with [DecisionFrom].
func Protect(a Authorizer, request func(r *http.Request) (Request, []Obligation, error), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, d := check(a, request, r)
		if status != http.StatusOK {
			http.Error(w, http.StatusText(status), status)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), decisionKey{}, d)))
	})
}

func check(a Authorizer, request func(*http.Request) (Request, []Obligation, error), r *http.Request) (int, Decision) {
	ask, met, err := request(r)
	if err != nil {
		return http.StatusInternalServerError, Decision{}
	}
	if ask.Subject.ID == "" {
		return http.StatusUnauthorized, Decision{}
	}
	d, err := a.Decide(r.Context(), ask)
	if err != nil {
		return http.StatusInternalServerError, Decision{}
	}
	if d.Proceed(met...) != nil {
		return http.StatusForbidden, Decision{}
	}
	return http.StatusOK, d
}

// DecisionFrom returns the decision that [Protect] made for a request, the zero Decision where it made none.
func DecisionFrom(ctx context.Context) Decision {
	d, _ := ctx.Value(decisionKey{}).(Decision)
	return d
}
