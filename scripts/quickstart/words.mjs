/** Everyday words of three to six letters: what the letter, counting and sorting tasks are about. */
export const words = `
  ant apple arm army baby back bag ball band bank barn bath beach bear bed bee bell belt bike bird
  boat bone book boot bowl box boy bread brick bus cake camel camp car card cart cat chair chin
  city clay cloud coat coin corn cow crab cream crow cup dad dawn deer desk dish dog doll door
  dove drum duck dust eagle ear egg elbow engine face farm feet field film fire fish flag floor
  flute foam fog fork fox frog fruit game gate gift girl glass glove goat gold grape grass guitar
  hair hall hand hat hawk heart hill hook horse hotel house ice idea ink iron island jacket jam jar
  jeans jet joke judge juice jump kettle key king kite kitten knee knife knot ladder lake lamb lamp
  leaf leg lemon lid lime lion lock log lunch map mask meal melon milk mint money moon mouse mouth
  mud nail neck nest net night noise nose nurse nut oak ocean office oil olive onion orange oven owl
  page paint pan park path peach pear pen pepper piano pie pig pilot pin pizza plane plate pond
  queen quilt quiz rabbit radio rain rat rice ring river road robot rock roof room rope rose rug
  sail salt sand school sea seal seed ship shirt shoe silver snow soap sofa song soup spoon star
  street sugar sun table tail tea tent tiger toast toe tooth tower toy train tree truck tulip
  uncle under valley van vase vest village violin voice wagon wall water wave week whale wheat
  wheel wind wing winter wolf wood wool yard year yoga zebra zero zoo
`
  .trim()
  .split(/\s+/)
  .filter((word) => word.length <= 6);
