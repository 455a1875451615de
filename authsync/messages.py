"""The catalogue of events: a fixed English name for scripts, a message in English and Portuguese for people.

Placeholders are fields of the event. The Portuguese of the first four is that of the system that authsync replaces.
"""

from __future__ import annotations

WARNINGS = frozenset(
    {
        "bot_cleared",
        "copy_kept",
        "identity_replaced",
        "legacy_still_written",
        "mass_deletion_followed",
        "restored_local",
        "restored_nothing",
    }
)
"""Events that a start or a flush tells, and that somebody should look at."""

MESSAGES: dict[str, tuple[str, str]] = {
    "restore_done": (
        "✅ Session {session} restored from the database: {files} files, {bytes} bytes in {took_ms} ms",
        "✅ Sessão {session} restaurada do banco",
    ),
    "flush_done": ("💾 Session saved to the database", "💾 Sessão salva no banco de dados"),
    "session_absent": (
        "ℹ️ No session {session} found in the database",
        "ℹ️ Nenhuma sessão {session} encontrada no banco",
    ),
    "fresh_start": (
        "📱 No session found, a new connection will be started",
        "📱 Nenhuma sessão encontrada, nova conexão será iniciada",
    ),
    "flush_summary": (
        "💾 {flushes} flushes in the last {period_s} s",
        "💾 {flushes} gravações nos últimos {period_s} s",
    ),
    "started": (
        "authsync {version} keeps {directory} as session {session}",
        "authsync {version} guarda {directory} como sessão {session}",
    ),
    "stopped": ("Stopped with code {code}", "Encerrado com código {code}"),
    "child_started": ("The bot runs", "O bot está rodando"),
    "child_ended": ("The bot ended with code {code}", "O bot terminou com código {code}"),
    "child_killed": (
        "The bot did not stop within {stop_timeout_s} s and was killed",
        "O bot não parou em {stop_timeout_s} s e foi morto",
    ),
    "watch_ready": ("The folder is ready for the bot", "A pasta está pronta para o bot"),
    "stop_asked": ("Asked to stop by {signal}", "Parada pedida por {signal}"),
    "session_acquired": (
        "The session is ours (start {number})",
        "A sessão é nossa (início {number})",
    ),
    "owner_waited_for": (
        "Another owner holds the session; waiting until it ends",
        "Outro dono está com a sessão; esperando que termine",
    ),
    "schema_migrated": (
        "The database schema is now version {version}",
        "O esquema do banco agora é a versão {version}",
    ),
    "legacy_imported": (
        "The old table whatsapp_sessions was imported: {files} files",
        "A tabela antiga whatsapp_sessions foi importada: {files} arquivos",
    ),
    "legacy_still_written": (
        "The old table whatsapp_sessions changed after its import: the old code still writes it; stop it",
        "A tabela antiga whatsapp_sessions mudou depois da importação: o código antigo ainda grava nela; pare-o",
    ),
    "copy_kept": (
        "The folder differed from what is stored; it is kept as snapshot {snapshot}",
        "A pasta diferia do que está salvo; foi guardada como snapshot {snapshot}",
    ),
    "snapshot_taken": ("Snapshot taken ({reason})", "Snapshot criado ({reason})"),
    "snapshots_pruned": ("{snapshots} old snapshots removed", "{snapshots} snapshots antigos removidos"),
    "database_waited_for": (
        "The database does not answer yet; waiting for it",
        "O banco ainda não responde; esperando por ele",
    ),
    "flush_failed": (
        "A flush failed and is tried again: {error}",
        "Uma gravação falhou e será repetida: {error}",
    ),
    "database_away": (
        "The database does not answer; the bot runs on and its changes wait",
        "O banco não responde; o bot continua e as mudanças esperam",
    ),
    "database_back": ("The database answers again", "O banco voltou a responder"),
    "store_put_back": (
        "The database was put back to an older state; the folder is stored again",
        "O banco voltou a um estado anterior; a pasta está sendo salva de novo",
    ),
    "fence_lost": (
        "The session is no longer ours: nothing more is written, and the bot is stopped",
        "A sessão não é mais nossa: nada mais é gravado, e o bot será parado",
    ),
    "file_torn": (
        "A file is empty or half written for {for_s} s; its last good version stays stored",
        "Um arquivo está vazio ou pela metade há {for_s} s; a última versão boa continua salva",
    ),
    "path_not_synced": ("A path is not synced: {reason}", "Um caminho não é sincronizado: {reason}"),
    "unsupported_store": (
        "{reason}: several files that only mean something together; such folders are not supported",
        "{reason}: vários arquivos que só fazem sentido juntos; essas pastas não são suportadas",
    ),
    "bot_paired": ("📱 The bot is paired", "✅ WhatsApp conectado: o bot está pareado"),
    "identity_replaced": (
        "Another identity replaces a paired one; undo: authsync rollback {snapshot}",
        "Outra identidade substitui uma pareada; desfazer: authsync rollback {snapshot}",
    ),
    "bot_cleared": (
        "The bot removed its session (a logout); undo: authsync rollback {snapshot}",
        "O bot removeu a sessão (logout); desfazer: authsync rollback {snapshot}",
    ),
    "mass_deletion_followed": (
        "Many files were deleted at once; undo: authsync rollback {snapshot}",
        "Muitos arquivos foram apagados de uma vez; desfazer: authsync rollback {snapshot}",
    ),
    "wipe_not_followed": (
        "The bot wiped its folder after it was told to stop; the last good revision stays stored",
        "O bot apagou a pasta depois do pedido de parada; a última revisão boa continua salva",
    ),
    "restored_local": (
        "The stored session cannot be restored; starting on the local folder",
        "A sessão salva não pode ser restaurada; iniciando com a pasta local",
    ),
    "restored_nothing": (
        "The stored session is damaged; starting fresh as told",
        "A sessão salva está danificada; iniciando do zero, como pedido",
    ),
    "watcher_restarted": ("The folder is watched again", "A pasta está sendo observada de novo"),
    "watcher_failed": (
        "File events cannot be had; the folder is compared every {every_s} s instead",
        "Eventos de arquivo indisponíveis; a pasta é comparada a cada {every_s} s",
    ),
    "folder_empty": (
        "The folder is still empty; did the bot write elsewhere? found: {found}",
        "A pasta continua vazia; o bot gravou em outro lugar? encontrado: {found}",
    ),
    "changes_unstored": (
        "{paths} changed paths could not be stored",
        "{paths} caminhos alterados não puderam ser salvos",
    ),
    "order_carried_out": ("A backup was asked for and made", "Um backup foi pedido e feito"),
    "grace_unset": (
        "Railway kills this container 0 s after SIGTERM; set RAILWAY_DEPLOYMENT_DRAINING_SECONDS=10",
        "O Railway mata este container 0 s após o SIGTERM; defina RAILWAY_DEPLOYMENT_DRAINING_SECONDS=10",
    ),
    "password_visible": (
        "The database password stands on the command line, readable by others; use DATABASE_URL instead",
        "A senha do banco está na linha de comando, visível a outros; use DATABASE_URL",
    ),
    "switched_off": (
        "authsync is switched off (AUTHSYNC_DATABASE_URL=off): nothing is restored and nothing is stored",
        "authsync está desligado (AUTHSYNC_DATABASE_URL=off): nada é restaurado e nada é salvo",
    ),
    "failed": ("{error}", "{error}"),
}
