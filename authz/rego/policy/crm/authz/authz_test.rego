package crm.authz_test

import data.crm.authz

now := 1795694400000000000

base := {
	"subject": {
		"id": "e1", "tenant": "t", "roles": ["sales"], "team": "/east/", "active": true,
		"level": 0, "compartments": [], "zone": "", "region": "", "device": "", "session": "s", "pools": [],
		"grants": [], "shares": [], "delegations": [], "emergencies": [],
	},
	"action": "read",
	"resource": {
		"tenant": "t", "type": "customer", "id": "r1", "owner": "e1", "team": "/east/", "state": "new",
		"level": 0, "compartments": [], "actors": [], "consents": [], "held": false, "amount": 0, "pool": "",
	},
	"environment": {"time": now, "purpose": "", "rows": 0},
}

changed(ask, values) := json.patch(ask, [{"op": "replace", "path": path, "value": value} | some path, value in values])

# Somebody else's record.
others := changed(base, {"/resource/owner": "e2"})

shared := changed(others, {"/subject/shares": [{"record": "r1", "by": "e2", "actions": ["read"], "until": now + 1}]})

delegated := changed(others, {"/subject/delegations": [{"from": "e2", "actions": ["read"], "until": now + 1}]})

emergency := changed(others, {"/subject/emergencies": [{
	"type": "customer", "approvers": ["e8", "e9"],
	"until": now + 1,
}]})

# A record that is free in a pool of theirs.
pooled := changed(base, {
	"/action": "claim", "/subject/pools": ["p1"],
	"/resource/owner": "", "/resource/team": "", "/resource/pool": "p1",
})

test_allow_own if {
	answer := authz.decision with input as base
	answer.required - answer.met == set()
	answer.grounds == {"rbac.own"}
	answer.obligations == set()
	["personal", "masked"] in answer.by_class
	["name", "open"] in answer.by_name
	authz.permitted with input as base
}

test_allow_each_ground[ground] if {
	some ground, ask in {
		"rbac.all": changed(others, {"/subject/roles": ["support"]}),
		"rbac.team": changed(others, {"/subject/roles": ["manager"]}),
		"rbac.own": base,
		"rbac.pool": pooled,
		"share": shared,
		"delegation": delegated,
		"emergency": emergency,
	}
	authz.grounds == {ground} with input as ask
	authz.permitted with input as ask
}

test_deny_without_ground if {
	authz.grounds == set() with input as others
	authz.required - authz.met == {"access.granted"} with input as others
	not authz.permitted with input as others
}

quote := changed(base, {
	"/subject/roles": ["manager"], "/resource": {
		"tenant": "t", "type": "quote", "id": "q1", "owner": "e2", "team": "/east/", "state": "sent",
		"level": 0, "compartments": [], "actors": ["e2"], "consents": [], "held": false, "amount": 100,
	},
	"/action": "approve",
})

test_allow_approval if authz.permitted with input as quote

test_deny_names_each_failed_control[control] if {
	some control, ask in {
		"access.granted": others,
		"active.subject": changed(base, {"/subject/active": false}),
		"amount.limit": changed(quote, {"/resource/amount": 5000001}),
		"consent.given": changed(base, {"/environment/purpose": "marketing"}),
		"frozen.state": changed(quote, {"/action": "update", "/resource/state": "accepted"}),
		"hold.free": changed(base, {"/action": "delete", "/resource/held": true}),
		"mac.read": changed(base, {"/resource/level": 1}),
		"mac.write": changed(base, {"/action": "update", "/subject/level": 1}),
		"role.reserved": changed(base, {"/subject/roles": ["sales", "system"]}),
		"sod.dynamic": changed(quote, {"/resource/actors": ["e2", "e1"]}),
		"sod.static": changed(base, {"/subject/roles": ["sales", "finance"]}),
		"tenant.same": changed(base, {"/resource/tenant": "other"}),
	}
	authz.required - authz.met == {control} with input as ask
	not authz.permitted with input as ask
}

test_deny_names_each_circumstance[control] if {
	some control, ask in {
		"context.device": changed(circumstances, {"/subject/device": ""}),
		"context.hours": changed(circumstances, {"/subject/zone": ""}),
		"context.network": changed(circumstances, {"/environment/address": "192.0.2.1"}),
		"context.region": changed(circumstances, {"/subject/region": "US"}),
		"purpose.allowed": changed(circumstances, {"/environment/purpose": "other"}),
	}
	authz.required - authz.met == {control} with input as ask
		with data.settings.context as demanding
		with data.settings.purposes as {"read": ["sales"]}
}

test_allow_demanded_circumstances if {
	authz.permitted with input as circumstances
		with data.settings.context as demanding
		with data.settings.purposes as {"read": ["sales"]}
}

circumstances := changed(base, {
	"/subject/device": "managed", "/subject/zone": "UTC", "/subject/region": "EU",
	"/environment": {"time": now, "address": "10.1.2.3", "purpose": "sales", "rows": 0},
})

demanding := {
	"hours": {"actions": ["read"], "types": [], "roles": [], "days": ["Thursday"], "from": "07:00", "to": "22:00"},
	"network": {"actions": ["read"], "types": [], "roles": [], "trusted": ["10.0.0.0/8"]},
	"device": {"actions": ["read"], "types": [], "roles": []},
	"regions": {"read": ["EU"]},
}

# No ground passes a mandatory control.
test_deny_every_ground[name] if {
	some name, patch in {
		"tenant": {"/resource/tenant": "other"},
		"level": {"/resource/level": 1},
		"compartments": {"/resource/compartments": ["vip"]},
		"suspended": {"/subject/active": false},
		"consent": {"/environment/purpose": "marketing"},
		"roles that exclude each other": {"/subject/roles": ["admin", "auditor"]},
	}
	every ask in [base, pooled, shared, delegated, emergency, changed(others, {"/subject/roles": ["admin"]})] {
		not authz.permitted with input as changed(ask, patch)
	}
}

# Nothing that is missing from a request may turn a no into a yes, nor may null. Everything that these
# requests have is needed by some control, but for what only other actions ask and what widens access.
test_deny_missing[path] if {
	some path in [
		"subject/id", "subject/tenant", "subject/roles", "subject/active", "subject/level", "action", "resource/tenant",
		"resource/type", "resource/owner", "resource/level", "resource/compartments", "environment/purpose", "subject",
		"resource", "environment",
	]
	not authz.permitted with input as json.remove(base, [path])
	not authz.permitted with input as changed(base, {concat("", ["/", path]): null})
}

test_deny_missing_of_an_approval[path] if {
	some path in ["resource/actors", "resource/amount"]
	not authz.permitted with input as json.remove(quote, [path])
	not authz.permitted with input as changed(quote, {concat("", ["/", path]): null})
}

less(ask) := {json.remove(ask, [concat("/", [section, key])]) |
	some section in ["subject", "resource", "environment"]
	some key in object.keys(ask[section])
}

test_deny_others_record_whatever_is_missing if {
	every ask in less(others) {
		not authz.permitted with input as ask
	}
}

test_deny_shared_record_above_the_level_whatever_is_missing if {
	every ask in less(changed(shared, {"/resource/level": 1})) {
		not authz.permitted with input as ask
	}
}

test_deny_own_approval_whatever_is_missing if {
	every ask in less(changed(quote, {"/resource/actors": ["e1"]})) {
		not authz.permitted with input as ask
	}
}

test_deny_time_missing if {
	not authz.permitted with input as json.remove(shared, ["/environment/time"])
	not authz.permitted with input as json.remove(delegated, ["/environment/time"])
	not authz.permitted with input as json.remove(emergency, ["/environment/time"])
}

test_deny_empty_input if {
	answer := authz.decision with input as {}
	answer.grounds == set()
	answer.by_class == set()
	answer.obligations == set()
	answer.met & {"access.granted", "active.subject", "mac.read", "tenant.same"} == set()
	not authz.permitted with input as {}
}

test_deny_unknown_action if not authz.permitted with input as changed(base, {"/action": "shred"})

test_deny_obligation_of_reveal_and_emergency if {
	authz.decision.obligations == {"reason"} with input as changed(base, {"/action": "reveal"})
	authz.decision.obligations == {"reason", "review"} with input as emergency
}

# Whoever is shown a record by a share or as a deputy may not pass it on.
test_deny_passing_on[action] if {
	some action in ["share", "approve", "declassify", "delete", "erase", "export"]
	not authz.permitted with input as changed(shared, {
		"/action": action,
		"/subject/shares/0/actions": [action],
	})
	not authz.permitted with input as changed(delegated, {
		"/action": action,
		"/subject/delegations/0/actions": [action],
	})
	not authz.permitted with input as changed(emergency, {"/action": action})
}

test_allow_own_approved_export_by_another if {
	export := changed(quote, {"/resource/type": "export", "/subject/roles": ["manager"]})
	authz.permitted with input as export
	not authz.permitted with input as changed(export, {"/resource/actors": ["e1"]})
	not authz.permitted with input as changed(export, {"/resource/actors": []})
	not authz.permitted with input as changed(export, {"/subject/roles": ["sales"], "/resource/owner": "e1"})
}
