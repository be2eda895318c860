package crm.authz_test

import data.crm.authz

base := {
	"subject": {"id": "e1", "tenant": "t", "roles": ["sales"], "team": "/east/", "active": true},
	"action": "read",
	"resource": {"tenant": "t", "type": "customer", "owner": "e1", "team": "/east/", "state": "new"},
}

test_allow_own if {
	answer := authz.decision with input as base
	answer.allowed
	answer.failed == set()
	"rbac.own" in answer.met
	answer.fields.by_class.personal == 1
}

test_deny_names_each_failed_control[control] if {
	some control, patch in {
		"tenant.same": {"op": "replace", "path": "/resource/tenant", "value": "other"},
		"active.subject": {"op": "replace", "path": "/subject/active", "value": false},
		"rbac.grant": {"op": "replace", "path": "/resource/owner", "value": "e2"},
	}
	answer := authz.decision with input as json.patch(base, [patch])
	not answer.allowed
	answer.failed == {control}
	answer.fields == {"by_class": {}, "by_name": {}}
	answer.obligations == set()
}

test_deny_frozen if {
	answer := authz.decision with input as json.patch(base, [
		{"op": "replace", "path": "/resource/type", "value": "quote"},
		{"op": "replace", "path": "/resource/state", "value": "accepted"},
		{"op": "replace", "path": "/action", "value": "update"},
	])
	not answer.allowed
	answer.failed == {"frozen.state"}
}

test_deny_empty_input if {
	answer := authz.decision with input as {}
	not answer.allowed
	answer.met == set()
}

test_reveal_carries_its_obligation if {
	answer := authz.decision with input as json.patch(base, [{"op": "replace", "path": "/action", "value": "reveal"}])
	answer.allowed
	answer.obligations == {"reason"}
}
