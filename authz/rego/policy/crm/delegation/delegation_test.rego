package crm.delegation_test

import data.crm.delegation

now := 1795694400000000000

item := {"from": "e2", "actions": ["read", "update", "create"], "until": now + 1}

base := {
	"subject": {"id": "e1", "roles": ["sales"], "grants": [], "delegations": [item]},
	"action": "read",
	"resource": {"type": "customer", "id": "r1", "owner": "e2"},
	"environment": {"time": now},
}

changed(path, value) := json.patch(base, [{"op": "replace", "path": path, "value": value}])

test_allow_deputy[action] if {
	some action in ["read", "update", "create"]
	delegation.given with input as changed("/action", action)
}

test_allow_second_delegation if {
	delegation.given with input as changed("/subject/delegations", [object.union(item, {"from": "e9"}), item])
}

test_allow_first_and_last_moment if {
	first := json.patch(base, [
		{"op": "replace", "path": "/environment/time", "value": 1},
		{"op": "replace", "path": "/subject/delegations/0/until", "value": 2},
	])
	delegation.given with input as first
	delegation.given with input as changed("/subject/delegations/0/until", 9223372036854775807)
	not delegation.given with input as changed("/subject/delegations/0/until", 9223372036854775808)
}

test_deny_changed[name] if {
	some name, ask in {
		"another owner": changed("/resource/owner", "e3"),
		"no owner": changed("/resource/owner", ""),
		"owner null": changed("/resource/owner", null),
		"action not delegated": changed("/action", "list"),
		"action not delegable": changed("/action", "delete"),
		"unknown action": changed("/action", "shred"),
		"type not delegable": changed("/resource/type", "employee"),
		"type unknown": changed("/resource/type", "payroll"),
		"no role": changed("/subject/roles", []),
		"role without a grant for it": changed("/subject/roles", ["analyst"]),
		"no delegations": changed("/subject/delegations", []),
		"null delegations": changed("/subject/delegations", null),
		"ends now": changed("/environment/time", now + 1),
		"ended": changed("/environment/time", now + 2),
		"null time": changed("/environment/time", null),
		"word time": changed("/environment/time", "now"),
		"time 0": changed("/environment/time", 0),
		"time missing": changed("/environment", {}),
		"owner missing": changed("/resource", {"type": "customer"}),
		"nothing": {},
	}
	not delegation.given with input as ask
}

test_deny_delegation[name] if {
	some name, patch in {
		"from another": {"from": "e3"},
		"from nobody": {"from": ""},
		"from null": {"from": null},
		"no actions": {"actions": []},
		"actions null": {"actions": null},
		"actions a word": {"actions": "read"},
		"until 0": {"until": 0},
		"until null": {"until": null},
		"until a word": {"until": "tomorrow"},
		"until yes": {"until": true},
	}
	not delegation.given with input as changed("/subject/delegations/0", object.union(item, patch))
}

test_deny_nobodys_record if {
	not delegation.given with input as json.patch(base, [
		{"op": "replace", "path": "/resource/owner", "value": ""},
		{"op": "replace", "path": "/subject/delegations/0/from", "value": ""},
	])
}

test_deny_parts_of_two_delegations if {
	two := [object.union(item, {"until": now}), object.union(item, {"from": "e3"})]
	not delegation.given with input as changed("/subject/delegations", two)
}

test_deny_passing_on[action] if {
	some action in [
		"share", "approve", "certify", "declassify", "manage", "purge",
		"claim", "assign", "transfer", "release", "recycle", "handover", "enter", "lock", "merge",
	]
	ask := json.patch(base, [
		{"op": "replace", "path": "/action", "value": action},
		{"op": "replace", "path": "/subject/roles", "value": ["admin"]},
		{"op": "replace", "path": "/subject/delegations/0/actions", "value": [action]},
	])
	not delegation.given with input as ask
		with data.settings.delegable_actions as [action]
		with data.settings.grants.admin.customer as {action: "all"}
}

# A deputy who creates a delegation in the name of who is away would pass on what is theirs.
test_deny_delegating_in_the_name_of_another[type] if {
	some type in [
		"delegation", "sharing", "emergency", "export", "certification", "account",
		"ownership", "erasure", "hold",
	]
	ask := json.patch(base, [
		{"op": "replace", "path": "/action", "value": "create"},
		{"op": "replace", "path": "/resource/type", "value": type},
		{"op": "replace", "path": "/subject/roles", "value": ["admin"]},
	])
	not delegation.given with input as ask
	not delegation.given with input as ask with data.settings.delegable_types as [type]

	# Nor when the deputy's role has a grant for it.
	not delegation.given with input as ask
		with data.settings.delegable_types as [type]
		with data.settings.grants.admin as {type: {"create": "all"}}
}

test_deny_settings_missing if {
	not delegation.given with input as base with data.settings.delegable_actions as null
	not delegation.given with input as base with data.settings.delegable_types as null
}
