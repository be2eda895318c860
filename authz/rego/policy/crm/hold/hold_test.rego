package crm.hold_test

import data.crm.hold

asks(action, held) := {"action": action, "resource": {"type": "customer", "held": held}}

test_allow_not_held[action] if {
	some action in ["delete", "purge", "erase"]
	hold.free with input as asks(action, false)
}

test_allow_what_destroys_nothing[action] if {
	some action in others
	hold.free with input as asks(action, true)
}

test_deny_held[action] if {
	some action in ["delete", "purge", "erase"]
	not hold.free with input as asks(action, true)
}

test_deny_held_of_another_form[name] if {
	some name, held in {"null": null, "word": "false", "empty": "", "number": 0, "list": []}
	not hold.free with input as asks("delete", held)
	not hold.free with input as asks("purge", held)
	not hold.free with input as asks("erase", held)
}

test_deny_unknown_action if {
	not hold.free with input as asks("shred", true)
	not hold.free with input as asks("shred", false)
}

test_deny_missing if {
	not hold.free with input as {"action": "delete", "resource": {}}
	not hold.free with input as {"action": "purge", "resource": {}}
	not hold.free with input as {"resource": {"held": false}}
	not hold.free with input as {}
}

# The actions that take nothing of this.
others := {action | some action in data.settings.actions} - {"delete", "purge", "erase"}

test_deny_contract_within_its_retention if {
	kept := {"type": "contract", "state": "ended", "held": true}
	not hold.free with input as {"action": "purge", "resource": kept}
	not hold.free with input as {"action": "delete", "resource": kept}
	hold.free with input as {"action": "handover", "resource": kept}
}
