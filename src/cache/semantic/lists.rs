//! The words that the guards know, in English, German, French and Spanish.
//!
//! Small lists on purpose: a word that is missing here makes a cache miss where a hit was possible, hardly ever the reverse, because
//! [`super::guards`] treats words it does not know as different from one another.

/// Words that carry no meaning of their own, and words with which people ask.
pub(super) const EMPTY: &str = "a an the this that these those it its is are was were be been being am do does did doing done has have had having \
    i me my mine we us our you your yours he she they them their him his her hers who whom whose which what when where why how \
    to of in on at for from by with about into onto as than and or but if then so too very can could will would shall should may might \
    must there here please kindly just also tell give explain describe know want need like help hi hello hey thanks thank way ways method \
    best good simple easy quick possible get got much many mean means meaning define definition some any such really actually exactly let lets s t re ve ll d m briefly short simply \
    question wondering wonder looking look able go going use using used work works between during while because ok okay vs versus \
    der die das den dem des ein eine einen einem einer eines und oder aber ist sind war waren sein wird werden wurde ich du er sie es wir ihr \
    mich mir dich dir uns euch mein meine meinen meinem dein deine kann können könnte soll will muss bitte wie was wer wo wann warum wieso \
    welche welcher welches zu zum zur in im an am auf aus bei mit von vom für über um als man sich auch gibt geht mal sag sage sagen erkläre erklären \
    le la les l un une des du de d et ou mais est sont était être ai as avez ont je j tu il elle on nous vous ils elles mon ma mes ton ta tes \
    son sa ses ce cet cette ces que qu qui quoi où quand comment pourquoi quel quelle quels quelles à au aux dans sur pour par avec en puis \
    peux peut pouvez faire fait faut s'il plaît s'il-vous-plaît y est-ce se dis dire dites pourriez pourrais m \
    el los las lo unos unas del al y o pero es son era ser estar está estoy yo tú él ella nosotros ustedes mi mis tu tus su sus este esta \
    estos estas eso que qué quien quién cual cuál cuándo cuando cómo como dónde donde por para con puedo puede podemos hacer hago favor se dime decir decirme puedes podrías";

/// Words that say no. Each counts as one.
pub(super) const NEGATIONS: &str = "not no never none nobody nothing neither nor without cannot cant dont doesnt didnt wont isnt arent wasnt shouldnt \
    nicht kein keine keinen keinem keiner keines nie niemals ohne weder nichts niemand \
    pas jamais sans aucun aucune rien ni \
    sin nunca jamás ningún ninguna ninguno tampoco nada";

/// Words that mean the same, one set a line; the first stands for all.
pub(super) const SAME: &str = "fix repair mend resolve solve
    create make build generate produce
    buy purchase
    big large huge
    error mistake fault
    remove delete erase
    display show print view
    find search locate discover
    obtain fetch retrieve acquire
    car automobile
    picture image photo photograph
    change modify alter edit adjust
    begin start commence
    difference distinction differ distinguish
    reason cause
    example sample
    function method-of-code
    kid child children
    doctor physician
    movie film
    job occupation
    phone telephone smartphone
    install setup set-up
    quickly fast rapid
    important significant
    verify check validate confirm
    convert transform translate-format turn-into
    compute calculate determine
    summarize summarise
    optimize optimise
    color colour
    benefit advantage
    recommend suggest advise
    learn study
    cook prepare
    clean wash
    travel journey trip
    answer reply respond response
    begin-with start-with
    list array
    happen occur
    order sort arrange
    reverse invert
    combine join merge concatenate
    copy duplicate
    laptop notebook
    employ hire
    lawyer attorney
    illness disease sickness
    reduce lower decrease
    increase raise
    enable activate turn-on switch-on
    disable deactivate turn-off switch-off
    password passcode
    website site webpage
    person people human
    recipe recipes
    tall height high
    auto wagen
    reparieren beheben
    löschen entfernen
    anzeigen zeigen
    réparer corriger
    supprimer effacer
    afficher montrer
    borrar eliminar
    mostrar enseñar
    arreglar reparar";

/// Words that exclude one another, one set a line, the sides between bars. `~`: too common to mean something by its absence, so it
/// only speaks against the other sides.
pub(super) const OPPOSITES: &str = "enable activate turn-on switch-on aktivieren einschalten activer allumer activar encender habilitar | disable deactivate \
        turn-off switch-off deaktivieren ausschalten désactiver éteindre desactivar apagar deshabilitar
    allow permit grant erlauben autoriser permettre permitir | deny forbid prohibit ban revoke verbieten refuser interdire prohibir denegar
    increase raise boost erhöhen steigern augmenter aumentar incrementar | decrease reduce lower shrink senken verringern reduzieren diminuer \
        réduire disminuir reducir
    before avant antes ~vor | after après después ~nach
    ~start ~begin ~launch boot starten beginnen démarrer commencer iniciar empezar | stop finish halt terminate kill stoppen beenden arrêter \
        terminer detener parar
    open öffnen ouvrir abrir | close shut schließen fermer cerrar
    ~add ~append ~insert hinzufügen ajouter añadir agregar | remove delete erase entfernen löschen supprimer enlever eliminar borrar
    ~install installieren installer instalar | uninstall deinstallieren désinstaller desinstalar
    buy purchase kaufen acheter comprar | sell verkaufen vendre vender
    import importieren importer importar | export exportieren exporter exportar
    upload hochladen téléverser | download herunterladen télécharger descargar
    encrypt verschlüsseln chiffrer cifrar | decrypt entschlüsseln déchiffrer descifrar
    encode serialize | decode deserialize
    compress zip | decompress extract unzip uncompress
    maximum max largest biggest highest longest tallest maximize größte máximo | minimum min smallest lowest shortest minimize kleinste mínimo
    ~first erste premier primero | ~last letzte dernier último
    win gewinnen gagner ganar | lose verlieren perdre perder
    push | pull
    ~up | ~down
    left izquierda gauche | ~right derecha droite
    hot warm heiß chaud caliente | cold cool kalt froid frío
    true wahr vrai verdadero | false falsch faux falso
    accept annehmen accepter aceptar | reject refuse decline ablehnen rejeter rechazar
    ~show reveal zeigen afficher mostrar | hide verstecken masquer cacher ocultar
    lock sperren verrouiller | unlock entsperren déverrouiller desbloquear
    connect verbinden connecter conectar | disconnect trennen déconnecter desconectar
    login log-in sign-in anmelden | logout log-out sign-out abmelden
    including include | excluding exclude except omit
    ascending aufsteigend croissant ascendente | descending absteigend décroissant descendente
    public öffentlich público | private privat privé privado
    inside indoor interior innen | outside outdoor exterior draußen
    above | below beneath
    early früh tôt temprano | late spät tard
    old alt vieux viejo | ~new neu nouveau nuevo young
    fast quick schnell rapide rápido | slow langsam lent lento
    cheap inexpensive billig | expensive costly teuer cher caro
    ~long lang | short kurz court corto
    ~high hoch haut alto | ~low niedrig bas bajo
    safe secure sicher sûr seguro | unsafe insecure dangerous gefährlich dangereux peligroso
    legal | illegal
    ~more mehr más | ~less ~fewer weniger moins menos
    ~best beste meilleur mejor | worst schlechteste pire peor
    ~good gut bon bueno | bad schlecht mauvais malo
    morning | afternoon | evening | night
    today heute hoy | tomorrow morgen demain mañana | yesterday gestern hier ayer
    monday montag lundi lunes | tuesday dienstag mardi martes | wednesday mittwoch mercredi miércoles | thursday donnerstag jeudi jueves | \
        friday freitag vendredi viernes | saturday samstag samedi sábado | sunday sonntag dimanche domingo
    january januar janvier enero | february februar février febrero | april avril abril | june juni juin junio | july juli juillet julio | \
        august août agosto | september septembre septiembre | october oktober octobre octubre | november novembre noviembre | \
        december dezember décembre diciembre
    spring frühling printemps primavera | summer sommer été verano | autumn herbst automne otoño | winter hiver invierno
    north nord norte northern | south süd sud sur southern | east ost este eastern | west ouest oeste western
    man men male mann homme hombre | woman women female frau femme mujer
    boy | girl
    mother mutter mère madre | father vater père padre
    husband | wife
    brother bruder frère hermano | sister schwester sœur hermana
    positive | negative
    plus add sum | minus subtract | multiply times | divide
    read lesen lire leer | write schreiben écrire escribir
    input | output
    client | server
    send senden envoyer enviar | receive empfangen recevoir recibir
    lend | borrow
    arrive | depart leave
    attach mount | detach unmount eject
    expand | collapse
    merge join combine | split separate
    hire | fire
    approve | disapprove
    subscribe | unsubscribe
    mute | unmute
    undo | redo
    commit | rollback revert
    upgrade | downgrade
    horizontal | vertical
    row | column
    prefix | suffix
    uppercase | lowercase
    singular | plural
    synonym | antonym
    cause | effect
    credit | debit
    profit gain | loss
    income | expense
    supply | demand
    breakfast | lunch | dinner
    sunrise | sunset
    static | dynamic
    local | remote
    internal | external
    parent | child
    advantage benefit pro | disadvantage drawback con risk
    strength | weakness
    symptom | treatment
    deposit | withdraw
    full | empty
    wet | dry
    easy simple | difficult hard
    rich | poor
    same equal | different
    strong | weak
    clockwise | counterclockwise anticlockwise
    at-least | at-most
    synchronous sync | asynchronous async
    mutable | immutable
    valid | invalid
    visible | invisible
    vegetarian vegan | meat
    ~with | without";

/// Numbers in words.
pub(super) const NUMBERS: &[(&str, u64)] = &[
    ("zero null cero zéro", 0),
    ("one eins uno once", 1),
    ("two zwei deux dos twice second zweite deuxième segundo", 2),
    ("three drei trois tres third dritte troisième tercero thrice", 3),
    ("four vier quatre cuatro fourth vierte", 4),
    ("five fünf cinq cinco fifth fünfte", 5),
    ("six sechs seis sixth", 6),
    ("seven sieben sept siete seventh", 7),
    ("eight acht huit ocho eighth", 8),
    ("nine neun neuf nueve ninth", 9),
    ("ten zehn dix diez tenth", 10),
    ("eleven elf onze", 11),
    ("twelve zwölf douze doce dozen", 12),
    ("thirteen dreizehn treize trece", 13),
    ("fourteen vierzehn quatorze catorce", 14),
    ("fifteen fünfzehn quinze quince", 15),
    ("sixteen sechzehn seize dieciséis", 16),
    ("seventeen siebzehn diecisiete", 17),
    ("eighteen achtzehn dieciocho", 18),
    ("nineteen neunzehn diecinueve", 19),
    ("twenty zwanzig vingt veinte", 20),
    ("thirty dreißig trente treinta", 30),
    ("forty vierzig quarante cuarenta", 40),
    ("fifty fünfzig cinquante cincuenta", 50),
    ("sixty sechzig soixante sesenta", 60),
    ("seventy siebzig setenta", 70),
    ("eighty achtzig ochenta", 80),
    ("ninety neunzig noventa", 90),
    ("hundred hundert cent cien", 100),
    ("thousand tausend mille mil", 1_000),
    ("million millionen millones", 1_000_000),
    ("billion milliarde", 1_000_000_000),
];

/// Units, one a line; the first word stands for all.
pub(super) const UNITS: &str = "km kilometer kilometre kilometers kilometres kilómetros kilómetro
    mi mile miles meilen
    metre meter meters metres metros
    cm centimeter centimetre centimeters centimetres
    mm millimeter millimetre millimeters millimetres
    ft foot feet
    inch inches
    yard yards
    kg kilogram kilograms kilo kilos
    lb pound pounds
    gram grams gramm grammes gramos
    oz ounce ounces
    liter litre liters litres litros
    gallon gallons
    ml milliliter millilitre milliliters
    celsius
    fahrenheit
    kelvin
    ms millisecond milliseconds
    seconds sekunden secondes segundos sec
    minute minutes minuten minutos min
    hour hours stunden stunde heure heures hora horas hr
    day days tag tage jour jours día días
    week weeks woche wochen semaine semaines semana semanas
    month months monat monate mois mes meses
    year years jahr jahre an ans année années año años
    percent % prozent pourcent porcentaje
    kb kilobyte kilobytes
    mb megabyte megabytes
    gb gigabyte gigabytes
    tb terabyte terabytes
    byte bytes
    bit bits
    dollar dollars $ usd
    euro euros € eur
    gbp £
    yen ¥ jpy
    am
    pm
    kwh
    watt watts
    volt volts
    mph
    kmh km/h kph";

/// Words that are no unit by themselves, only behind a number.
pub(super) const UNITS_BEHIND_NUMBERS: &[(&str, &str)] = &[
    ("m", "metre"),
    ("g", "gram"),
    ("l", "liter"),
    ("s", "seconds"),
    ("h", "hour"),
    ("c", "celsius"),
    ("f", "fahrenheit"),
    ("k", "thousand"),
    ("in", "inch"),
    ("second", "seconds"),
    ("°c", "celsius"),
    ("°f", "fahrenheit"),
    ("mo", "month"),
];
pub(super) const AMBIGUOUS_UNITS: &[&str] = &["am", "an", "ans", "mes", "min", "day", "hour", "tag", "mi", "bit", "sec"];
