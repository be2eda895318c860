# METADATA
# title: Purpose limitation
# description: >-
#   Personal data is processed for a purpose that is allowed for the action. Settings list the purposes of an
#   action; an action without a list may be done for any purpose, also for none that is stated.
# schemas:
#   - input: schema.input
# custom:
#   control: GDPR Art. 5(1)(b)
package crm.purpose

import data.crm.facts

# METADATA
# scope: document
# title: Allowed
# description: The stated purpose is one of the action's, or the action has none.
allowed if {
	count(object.get(data.settings.purposes, input.action, [])) == 0
	is_string(facts.purpose)
}

allowed if facts.purpose in data.settings.purposes[input.action]
