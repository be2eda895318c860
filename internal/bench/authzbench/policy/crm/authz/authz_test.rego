package crm.authz_test

import data.crm.authz

asks(action, owner) := {
	"subject": {"id": "e1", "tenant": "t", "roles": ["sales"], "team": "/east/1/", "level": 0, "active": true, "shares": []},
	"action": action,
	"resource": {"tenant": "t", "type": "customer", "id": "c1", "owner": owner, "team": "/east/1/", "state": "", "level": 0},
}

test_allow_own if authz.permitted with input as asks("read", "e1")

test_deny_other if not authz.permitted with input as asks("read", "e2")
