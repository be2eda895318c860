package crm.frozen_test

import data.crm.frozen

test_allow_read_of_final if {
	frozen.mutable with input as {"action": "read", "resource": {"type": "quote", "state": "accepted"}}
}

test_allow_change_of_draft if {
	frozen.mutable with input as {"action": "update", "resource": {"type": "quote", "state": "draft"}}
}

test_allow_type_without_final_states if {
	frozen.mutable with input as {"action": "update", "resource": {"type": "customer", "state": "won"}}
}

test_deny_final[state] if {
	some state in ["accepted", "declined", "expired", "withdrawn"]
	not frozen.mutable with input as {"action": "update", "resource": {"type": "quote", "state": state}}
}

test_deny_delete_of_final if {
	not frozen.mutable with input as {"action": "delete", "resource": {"type": "contract", "state": "ended"}}
}

# Who has a final record may still change, and it may be purged when a hold does not keep it.
test_allow_change_of_hands[action] if {
	some action in [
		"assign", "transfer", "release", "recycle", "handover",
		"enter", "lock", "claim", "browse", "purge", "merge",
	]
	frozen.mutable with input as {"action": action, "resource": {"type": "contract", "state": "ended"}}
}

test_deny_change_whatever_its_hands if {
	not frozen.mutable with input as {"action": "update", "resource": {"type": "contract", "state": "ended"}}
	not frozen.mutable with input as {"action": "delete", "resource": {"type": "lead", "state": "converted"}}
}

test_deny_unknown_action if {
	not frozen.mutable with input as {"action": "shred", "resource": {"type": "quote", "state": "draft"}}
	not frozen.mutable with input as {"action": "shred", "resource": {"type": "customer", "state": "new"}}
}

test_deny_missing_state if {
	not frozen.mutable with input as {"action": "update", "resource": {"type": "quote"}}
}

test_deny_empty_state if {
	not frozen.mutable with input as {"action": "update", "resource": {"type": "quote", "state": ""}}
}

test_deny_state_that_is_no_word[name] if {
	some name, state in {"null": null, "number": 1, "yes": true}
	not frozen.mutable with input as {"action": "update", "resource": {"type": "quote", "state": state}}
}

test_deny_missing if {
	not frozen.mutable with input as {"action": "update", "resource": {"state": "draft"}}
	not frozen.mutable with input as {"resource": {"type": "quote", "state": "draft"}}
	not frozen.mutable with input as {}
}

test_deny_settings_missing if {
	ask := {"action": "update", "resource": {"type": "quote", "state": "accepted"}}
	not frozen.mutable with input as ask with data.settings.frozen_states as null
}
