package crm.amount_test

import data.crm.amount

limits := {"quote": {"manager": 100, "finance": 1000}}

asks(roles, action, type, cents) := {
	"subject": {"id": "e1", "roles": roles, "grants": []},
	"action": action,
	"resource": {"type": type, "amount": cents},
}

test_allow_within[name] if {
	some name, ask in {
		"up to it": asks(["manager"], "approve", "quote", 100),
		"nothing": asks(["manager"], "approve", "quote", 0),
		"largest of the roles": asks(["manager", "finance"], "approve", "quote", 1000),
	}
	amount.limit with input as ask with data.settings.limits as limits
}

test_allow_type_without_limits if {
	amount.limit with input as asks(["manager"], "approve", "export", 5000) with data.settings.limits as limits
}

test_allow_other_actions[action] if {
	some action in others
	amount.limit with input as asks([], action, "quote", 5000) with data.settings.limits as limits
}

test_deny_above[name] if {
	some name, ask in {
		"by one": asks(["manager"], "approve", "quote", 101),
		"of both roles": asks(["manager", "finance"], "approve", "quote", 1001),
		"role without a limit": asks(["admin"], "approve", "quote", 1),
		"no role": asks([], "approve", "quote", 0),
		"negative": asks(["manager"], "approve", "quote", -1),
		"null": asks(["manager"], "approve", "quote", null),
		"word": asks(["manager"], "approve", "quote", "1"),
		"yes": asks(["manager"], "approve", "quote", true),
		"list": asks(["manager"], "approve", "quote", [1]),
	}
	not amount.limit with input as ask with data.settings.limits as limits
}

test_deny_limit_of_another_form[name] if {
	some name, most in {"null": null, "word": "1000", "yes": true, "list": [1000]}
	not amount.limit with input as asks(["manager"], "approve", "quote", 1)
		with data.settings.limits as {"quote": {"manager": most}}
}

test_deny_settings_of_another_form[name] if {
	some name, all_limits in {"null": null, "list": [], "word": "none", "null for the type": {"quote": null}}
	not amount.limit with input as asks(["manager"], "approve", "quote", 1) with data.settings.limits as all_limits
}

test_deny_unknown_action[type] if {
	some type in ["quote", "export"]
	not amount.limit with input as asks(["manager"], "shred", type, 1) with data.settings.limits as limits
}

test_deny_missing if {
	not amount.limit with input as json.remove(asks(["manager"], "approve", "quote", 1), ["/resource/amount"])
	not amount.limit with input as {"action": "approve", "resource": {"amount": 1}}
	not amount.limit with input as {}
}

# A limit gives nothing to a role that may not approve, and misleads who reads it.
test_deny_limits_without_a_grant[type] if {
	some type, by_role in data.settings.limits
	every role, _ in by_role {
		data.settings.grants[role][type].approve
	}
}

# The actions that take nothing of this.
others := {action | some action in data.settings.actions} - {"approve"}
